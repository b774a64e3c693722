// Which generation a query service reads, and whether ClickHouse answers: what its /readyz says of both.

import { messageOf, toRelogError } from "../../lib/base/errors.ts";
import type { Health } from "../../lib/base/health.ts";
import { sleep } from "../../lib/base/loop.ts";
import type { Logger } from "../../lib/base/telemetry.ts";
import { LiveGeneration } from "../../lib/query/live.ts";
import type { ClickHouse } from "../../lib/store/client.ts";
import { noteLive, recallLive } from "../../lib/store/live.ts";

const READY_CHECK_MS = 2_000;
const UNSETTLED_CHECK_MS = 100;
/** How long the streams may take to say which generation is live before the noted one is taken. */
const RECALL_AFTER_MS = 1_500;

/** The live generation of a site, with its copy beside the tables. */
export function followLive(writer: ClickHouse, site: string, health: Health, log: Logger): LiveGeneration {
  return new LiveGeneration({
    recall: () => recallLive(writer, site),
    note: (generation) => noteLive(writer, site, generation),
    onFault: (error) => log.warn({ err: error }, "the copy of the live generation beside the tables cannot be read or written"),
    onLost(generation) {
      const sentence = `the register of generations is lost: generation ${generation} answers, as it was noted; \`relog generations restore ${generation}\``;
      health.warn("register", generation === undefined ? undefined : sentence);
      if (generation !== undefined) log.error(sentence);
    },
  });
}

/** Keeps /readyz honest until the process leaves. @param ask whether ClickHouse answers; throws when not */
export async function watchClickHouse(
  live: LiveGeneration,
  ask: () => Promise<unknown>,
  health: Health,
  signal: AbortSignal,
): Promise<void> {
  const startedMs = performance.now();
  health.notReady("clickhouse", "not asked yet");
  async function look(): Promise<void> {
    await ask();
    if (!live.known && performance.now() - startedMs > RECALL_AFTER_MS) await live.recall();
    await live.note();
    void live.generation;
  }
  while (!signal.aborted) {
    const reason = await look().then(
      () => undefined,
      (error: unknown) => `${toRelogError(error).code}: ${messageOf(error)}`,
    );
    health.notReady("clickhouse", reason);
    await sleep(live.known ? READY_CHECK_MS : UNSETTLED_CHECK_MS, signal);
  }
}

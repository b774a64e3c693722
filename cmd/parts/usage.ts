// How usage is put together: closing it in the scheduler, answering about it in the query service and the commands.

import type { Directory } from "../../lib/accounts/directory.ts";
import { DAY_MS, systemClock } from "../../lib/base/clock.ts";
import { every } from "../../lib/base/loop.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import type { Checkpoint } from "../../lib/projector/checkpoint.ts";
import { checkpointKey } from "../../lib/projector/checkpoint.ts";
import type { Job } from "../../lib/scheduler/jobs.ts";
import type { UsageStore } from "../../lib/store/usage.ts";
import { usageStore } from "../../lib/store/usage.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import type { Leased } from "../../lib/streams/lease.ts";
import { acquire } from "../../lib/streams/lease.ts";
import { readStream, streamState } from "../../lib/streams/read.ts";
import type { UsagePorts } from "../../lib/usage/answer.ts";
import { usageCloser } from "../../lib/usage/closing.ts";
import { canonicalZone } from "../../lib/usage/endpoints.ts";
import type { Projection } from "./projection.ts";

const leaseKey = (site: string): string => `usage-closing.${site}`;
/** The largest message and more. */
const MESSAGE_BYTES_MAX = 8 * 2 ** 20;

export interface UsageClosing {
  readonly job: Job;
  /** Takes over all that the tables hold, before something is removed from them. */
  close(): Promise<void>;
  /** As close, all of it once a day only: expired days leave at the day's turn. */
  closeDaily(): Promise<void>;
}

/** What takes over the usage that the live generation of the parts' site counts. */
export function closerOf(parts: Projection): ReturnType<typeof usageCloser> {
  const { nc, clickhouse, settings, health } = parts;
  return usageCloser({
    store: usageStore(clickhouse, settings.cluster),
    generation: async () => (await generationsRegister(nc, settings.site).read()).value.live,
    projectedMs: (generation) => projectedMs(parts, generation),
    nowMs: systemClock.now,
    onLacking: (why) => health.warn("usage", why),
  });
}

/** Closes usage, one scheduler at a time. */
export function usageClosing(parts: Projection, everyMs: number, telemetry: Telemetry): UsageClosing {
  const { nc, settings, owner, log } = parts;
  let closedMs = 0;
  telemetry.gauge("relog_usage_closed_timestamp_seconds", "Up to when usage is closed; 0 until this process closed some.", [], (gauge) =>
    gauge.set(closedMs / 1_000),
  );
  const closer = closerOf(parts);
  async function close(whole: boolean): Promise<void> {
    const closed = await closer(whole);
    if (closed === undefined) return;
    closedMs = closed.untilMs;
    if (closed.rows > 0) log.debug(closed, "usage is taken over");
  }
  async function turn(signal: AbortSignal): Promise<void> {
    const lease = { register: register<Leased>(nc, leaseKey(settings.site)), clock: systemClock, owner, leaseMs: settings.leaseMs };
    await using claim = await acquire(lease, async () => ({ owner, writes: 0 }), signal);
    if (claim !== undefined) await every(everyMs, () => close(false), AbortSignal.any([signal, claim.lost]));
  }
  let wholeDay: number | undefined;
  return {
    close: () => close(true),
    async closeDaily() {
      const day = Math.floor(systemClock.now() / DAY_MS);
      await close(day !== wholeDay);
      wholeDay = day;
    },
    job: {
      name: "usage",
      async run(signal) {
        while (!signal.aborted) await turn(signal);
      },
    },
  };
}

/** Everything that the streams stored before it is projected, milliseconds since the epoch; 0 when that is not known. */
export async function projectedMs({ nc, settings }: Projection, generation: number): Promise<number> {
  const { site, shards, requestTimeoutMs } = settings;
  let least = Number.POSITIVE_INFINITY;
  for (let shard = 0; shard < shards; shard++) {
    const nowMs = systemClock.now();
    const stream = STREAMS.logs(shard);
    const checkpoint = (await register<Checkpoint>(nc, checkpointKey(site, generation, shard)).read())?.value;
    const { created, lastSeq } = await streamState(nc, stream);
    if (lastSeq === 0 || (checkpoint?.stream === created && checkpoint.next > lastSeq)) {
      least = Math.min(least, nowMs);
      continue;
    }
    if (checkpoint?.stream !== created) return 0;
    const read = (from: number) => readStream(nc, stream, from, { messagesMax: 1, bytesMax: MESSAGE_BYTES_MAX }, requestTimeoutMs);
    const { messages, missing } = await read(checkpoint.next);
    const [next] = missing === undefined ? messages : (await read(missing.to + 1)).messages;
    if (next === undefined) return 0;
    least = Math.min(least, next.storedMs);
  }
  return least;
}

/** What answering about usage needs. @param windows of the process that keeps them itself */
export function usagePorts(
  store: UsageStore,
  directory: Pick<Directory, "known">,
  generation: () => number,
  windows: UsagePorts["windows"] = () => undefined,
): UsagePorts {
  return {
    store,
    generation,
    windows,
    account(tenant) {
      const { status, quotas } = directory.known(tenant).account;
      return status === "absent" ? undefined : { quotas, zone: canonicalZone(quotas.time_zone ?? "UTC") ?? "UTC" };
    },
    nowMs: systemClock.now,
  };
}

/** The generation of a site that answers, asked once. */
export async function liveGeneration(nc: NatsConnection, site: string): Promise<number> {
  return (await generationsRegister(nc, site).read()).value.live;
}

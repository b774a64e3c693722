// How a shard's worker is put together: the same for the projector and for a rebuild.

import { randomUUID } from "node:crypto";
import type { Library } from "../../lib/archive/library.ts";
import { openLibrary } from "../../lib/archive/library.ts";
import { archiveStoreSettings, openObjectStore } from "../../lib/archive/settings.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Values } from "../../lib/base/config.ts";
import { text } from "../../lib/base/config.ts";
import type { Health } from "../../lib/base/health.ts";
import type { Logger } from "../../lib/base/telemetry.ts";
import type { Policy } from "../../lib/event/retention.ts";
import { isExpired, retentionSettings } from "../../lib/event/retention.ts";
import type { Checkpoint } from "../../lib/projector/checkpoint.ts";
import { checkpointKey } from "../../lib/projector/checkpoint.ts";
import { failpointFrom } from "../../lib/projector/failpoint.ts";
import { judgeWanted } from "../../lib/projector/message.ts";
import type { ProjectorMetrics } from "../../lib/projector/metrics.ts";
import type { ShardPorts } from "../../lib/projector/run.ts";
import { projectorSettings, ShardWorker } from "../../lib/projector/run.ts";
import type { Park } from "../../lib/projector/settle.ts";
import { siteOf } from "../../lib/projector/site.ts";
import type { Source } from "../../lib/projector/source.ts";
import type { ClickHouse } from "../../lib/store/client.ts";
import { clickhouseSettings } from "../../lib/store/client.ts";
import { engineTimeMs, inserter, isTableGone, killInserts, presence, saysTableGone } from "../../lib/store/insert.ts";
import { clusterSettings, generationDatabase } from "../../lib/store/migrate.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { natsSettings } from "../../lib/streams/connection.ts";
import { parker } from "../../lib/streams/dead.ts";
import { topologySettings } from "../../lib/streams/topology.ts";
import { shardSource } from "./source.ts";
import { firstOf, isWanted, makeTables } from "./tables.ts";

export const siteSettings = {
  site: text("RELOG_SITE", "main", "name of the ClickHouse server or cluster that is filled and asked"),
};

export const projectionSettings = {
  ...siteSettings,
  ...natsSettings,
  ...topologySettings,
  ...clickhouseSettings,
  ...clusterSettings,
  ...projectorSettings,
  ...retentionSettings,
  ...archiveStoreSettings,
  failpoint: text("RELOG_FAILPOINT", "", "tests only: name:count ends the process at that step"),
};
export type ProjectionValues = Values<typeof projectionSettings>;

/** What a process has that projects. */
export interface Projection {
  readonly nc: NatsConnection;
  readonly clickhouse: ClickHouse;
  readonly settings: ProjectionValues;
  /** How long tenants' records stay, and which tenants were deleted. */
  readonly policy: Policy;
  /** Unique to this process: who takes the checkpoints. */
  readonly owner: string;
  readonly log: Logger;
  readonly health: Health;
  readonly metrics: ProjectorMetrics;
  /** Undefined where there is no archive. */
  readonly library: Library | undefined;
}

/** What a rebuild, or filling a table from the archive, does otherwise than the live projection. */
export interface Otherwise extends Partial<Pick<ShardPorts, "name" | "judge" | "tenants" | "pace" | "end" | "stored" | "park">> {
  /** Key of the checkpoint. */
  readonly key?: string;
  readonly database?: string;
  readonly table?: string;
  readonly source?: Source;
  readonly isFatal?: (error: unknown) => boolean;
  readonly background?: boolean;
}

const DEAD_LETTER_LOG_MS = 5_000;

/** The archive that the settings name, for reading. Shards that are read at the same time want a segment each. */
export function libraryOf(settings: Values<typeof archiveStoreSettings> & { readonly shards: number }): Library | undefined {
  const objects = openObjectStore(settings);
  return objects && openLibrary(objects, { cachedSegmentsMax: Math.max(2, settings.shards) });
}

/** The worker of a shard of a generation. `leave` and `abandon` as in ShardContext. */
export function shardWorker(
  parts: Projection,
  generation: number,
  shard: number,
  [leave, abandon]: readonly [leave: AbortSignal, abandon: AbortSignal],
  otherwise: Otherwise = {},
): ShardWorker {
  const { nc, clickhouse, settings, policy, log, health, metrics } = parts;
  const name = otherwise.name ?? `${settings.site}/${generation}/${shard}`;
  const { table = "logs", background = false } = otherwise;
  const insert = inserter(clickhouse, { table, background });
  const source = otherwise.source ?? shardSource(nc, shard, { library: parts.library, timeoutMs: settings.requestTimeoutMs });
  // An engine that lost its data gets the tables again, as long as the generation is wanted.
  const remade = async (): Promise<void> => {
    if (otherwise.database === undefined && (await isWanted(parts, generation))) await makeTables(parts, generation);
  };
  const present = presence(clickhouse, table);
  const store = {
    async insert(request: Parameters<typeof insert>[0]) {
      const outcome = await insert(request);
      if (isTableGone(outcome)) await remade();
      return outcome;
    },
    async presence(request: Parameters<typeof present>[0]) {
      try {
        return await present(request);
      } catch (error) {
        if (saysTableGone(error)) await remade();
        throw error;
      }
    },
    kill: (token: string) => killInserts(clickhouse, token, settings.cluster),
    timeMs: () => engineTimeMs(clickhouse),
  };
  const kept = judgeWanted(({ tenant, maxTimestamp }) => !isExpired(policy, tenant, maxTimestamp, systemClock.now()));
  const ports: ShardPorts = {
    name,
    register: register<Checkpoint>(nc, otherwise.key ?? checkpointKey(settings.site, generation, shard)),
    source: otherwise.key === undefined ? { ...source, first: () => firstOf(parts, generation, source) } : source,
    site: siteOf(store, otherwise.database ?? generationDatabase(generation), systemClock),
    tenants: otherwise.tenants ?? policy,
    park: otherwise.park ?? parkAndTell(parts, generation, shard, name),
    failpoint: failpointFrom(settings.failpoint),
    judge: otherwise.judge ?? kept,
    ...(otherwise.pace === undefined ? {} : { pace: otherwise.pace }),
    ...(otherwise.end === undefined ? {} : { end: otherwise.end }),
    ...(otherwise.stored === undefined ? {} : { stored: otherwise.stored }),
  };
  return new ShardWorker({
    ports,
    settings,
    // Two workers of one process are two owners: the later one waits as anybody does for what the earlier one left open.
    owner: `${parts.owner}/${randomUUID()}`,
    clock: systemClock,
    log,
    health,
    metrics,
    leave,
    abandon,
    ...(otherwise.isFatal === undefined ? {} : { isFatal: otherwise.isFatal }),
  });
}

function parkAndTell({ nc, settings, log, metrics }: Projection, generation: number, shard: number, name: string): Park {
  const park = parker(nc, settings.site, generation, shard);
  let quietUntilMs = 0;
  return async (letter) => {
    await park(letter);
    metrics.dead.inc({ shard: name, reason: letter.reason });
    // A flood of them is one line now and then; each is in DEAD_LETTERS and in the metric.
    if (systemClock.monotonicMs() < quietUntilMs) return;
    quietUntilMs = systemClock.monotonicMs() + DEAD_LETTER_LOG_MS;
    log.error({ shard: name, seq: letter.message.seq, reason: letter.reason, detail: letter.detail }, "dead letter");
  };
}

// How a rebuild is put together: for the command line, and for the scheduler that runs one for an operator.

import { ArchiveDamaged } from "../../lib/archive/library.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Values } from "../../lib/base/config.ts";
import { integer } from "../../lib/base/config.ts";
import type { Envelope } from "../../lib/event/envelope.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import { isExpired } from "../../lib/event/retention.ts";
import type { Checkpoint } from "../../lib/projector/checkpoint.ts";
import { checkpointKey } from "../../lib/projector/checkpoint.ts";
import { failpointFrom } from "../../lib/projector/failpoint.ts";
import { judgeWanted } from "../../lib/projector/message.ts";
import type { Source } from "../../lib/projector/source.ts";
import { SequencesMissing } from "../../lib/projector/source.ts";
import type { ControlPorts } from "../../lib/replay/control.ts";
import type { Rebuild, RebuildSpec } from "../../lib/replay/job.ts";
import { rebuildKey } from "../../lib/replay/job.ts";
import { pacer } from "../../lib/replay/pace.ts";
import type { RebuildPorts, Work, Workers } from "../../lib/replay/rebuild.ts";
import { removalOf, removeRows } from "../../lib/store/generation.ts";
import { GENERATIONS_MAX } from "../../lib/store/migrate.ts";
import type { Register } from "../../lib/streams/cas.ts";
import { forget, register } from "../../lib/streams/cas.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import { readStream, streamState } from "../../lib/streams/read.ts";
import { crew } from "./crew.ts";
import { noRetryUnderWay } from "./dead.ts";
import { historyPorts } from "./history.ts";
import type { Otherwise, Projection } from "./projection.ts";
import { shardWorker } from "./projection.ts";
import { sweepExpired } from "./retention.ts";
import { dropperOf, ownerOf } from "./seats.ts";
import { shardSource } from "./source.ts";
import { makeTables } from "./tables.ts";
import { closerOf } from "./usage.ts";
import type { MadeOf } from "./verify.ts";
import { comparing, findingsOf, findingsOfTenant, verifying } from "./verify.ts";

export const rebuildSettings = {
  rebuildRate: integer(
    "RELOG_REBUILD_RATE",
    "0",
    [0, 1e9],
    "records/s",
    "the most that a rebuild stores, all shards together; 0 is as fast as the engine takes it, which still gives way to the live projection",
  ),
};

/** What a rebuild of this process is made of. */
export interface Rebuilding {
  readonly control: ControlPorts;
  readonly ports: RebuildPorts;
}

export function rebuilding(parts: Projection, settings: Values<typeof rebuildSettings>): Rebuilding {
  const { nc, clickhouse } = parts;
  const { site, shards, cluster, leaseMs } = parts.settings;
  const generations = generationsRegister(nc, site);
  const checkpointOf = (key: string): Register<Checkpoint> => register<Checkpoint>(nc, key);
  const own = ownerOf(parts);
  const dropGeneration = dropperOf(parts);
  const closer = closerOf(parts);
  const closeUsage = async (): Promise<void> => void (await closer(true));
  const control: ControlPorts = {
    register: register<Rebuild>(nc, rebuildKey(site)),
    generations,
    clock: systemClock,
    leaseMs,
    generationsMax: GENERATIONS_MAX,
    newId: () => newBatchId(systemClock.now()),
    dropGeneration,
  };
  const ports: RebuildPorts = {
    generations,
    shards,
    clock: systemClock,
    own,
    dropGeneration,
    checkpoint: async (generation, shard) => (await checkpointOf(checkpointKey(site, generation, shard)).read())?.value,
    makeTables: async (generation) => void (await makeTables(parts, generation)),
    stream: (shard) => streamState(nc, STREAMS.logs(shard)),
    firstSeq: async (shard) => (await sourceOf(parts, shard, {}).first()).next,
    work: (work) => workers(parts, settings, work),
    tenantCheckpoint: async (rebuild, shard) => (await checkpointOf(tenantKey(site, rebuild, shard)).read())?.value,
    async verify({ generation, spec }, signal) {
      // What has expired meanwhile is neither in the log's count nor, from now on, in the table.
      await sweepExpired(parts, closeUsage);
      const result = await verifying(parts, generation, signal, undefined, madeOf(parts, spec));
      return spec.tenant === undefined ? findingsOf(result) : findingsOfTenant(result, spec.tenant);
    },
    async compare(older, newer, signal) {
      for (let shard = 0; shard < shards; shard++) {
        const [a, b] = await Promise.all([older, newer].map((generation) => ports.checkpoint(generation, shard)));
        if (a !== undefined && a.stream === b?.stream) continue;
        return { ok: true, lines: [`generation ${older} is of other streams than ${newer}: they are not compared`], why: "" };
      }
      return findingsOf(await comparing(parts, [older, newer], signal));
    },
    ...historyPorts(parts),
    retriesEnded: (generation, signal) => noRetryUnderWay(parts, generation, signal),
    removeRows: (generation, tenant) => removeRows(clickhouse, generation, tenant, cluster),
    removalOf: (generation) => removalOf(clickhouse, generation),
    async forgetTenant(rebuild) {
      for (let shard = 0; shard < shards; shard++) await forget(nc, tenantKey(site, rebuild, shard));
    },
    failpoint: failpointFrom(parts.settings.failpoint, "rebuild-"),
  };
  return { control, ports };
}

/** The checkpoint of a tenant's rebuild: beside the live projection's. */
const tenantKey = (site: string, rebuild: Rebuild, shard: number): string => `rebuild-tenant.${site}.${rebuild.id}.${shard}`;

function workers(parts: Projection, settings: Values<typeof rebuildSettings>, { rebuild, stored }: Work): Workers {
  const { spec, generation } = rebuild;
  const pace = pacer(spec.rate ?? settings.rebuildRate, { clock: systemClock, liveLagMs: liveLag(parts) });
  const work = (shard: number, leave: AbortSignal, abandon: AbortSignal): Promise<void> => {
    const otherwise: Otherwise = {
      source: sourceOf(parts, shard, spec),
      judge: judgeWanted(wantedBy(parts, spec)),
      pace,
      stored,
      background: true,
      isFatal: (error) => error instanceof SequencesMissing || error instanceof ArchiveDamaged,
      ...(spec.tenant === undefined ? {} : { key: tenantKey(parts.settings.site, rebuild, shard), end: rebuild.cuts[shard]! }),
    };
    return shardWorker(parts, generation, shard, [leave, abandon], otherwise).run();
  };
  return crew((leave, abandon) => Array.from({ length: parts.settings.shards }, (_, shard) => work(shard, leave, abandon)));
}

function wantedBy({ policy }: Projection, spec: RebuildSpec): (envelope: Envelope) => boolean {
  const nsOf = (time: string): bigint => BigInt(Date.parse(time)) * 1_000_000n;
  const since = spec.since === undefined ? undefined : nsOf(spec.since);
  const until = spec.until === undefined ? undefined : nsOf(spec.until);
  return ({ tenant, minTimestamp, maxTimestamp }) =>
    (spec.tenant === undefined || tenant === spec.tenant) &&
    (since === undefined || maxTimestamp >= since) &&
    (until === undefined || minTimestamp < until) &&
    !isExpired(policy, tenant, maxTimestamp, systemClock.now());
}

/** What verification may expect of a generation; a tenant's rebuild leaves a whole one. */
function madeOf(parts: Projection, spec: RebuildSpec): MadeOf {
  return {
    ...(spec.since === undefined && spec.until === undefined ? {} : { wanted: wantedBy(parts, spec) }),
    ...(spec.fromSeq === undefined ? {} : { fromSeq: spec.fromSeq }),
    skipMissing: spec.skipMissing ?? false,
  };
}

function sourceOf({ nc, library, settings }: Projection, shard: number, spec: RebuildSpec): Source {
  const timeoutMs = settings.requestTimeoutMs;
  const source = shardSource(nc, shard, { library, timeoutMs, history: true, skipMissing: spec.skipMissing ?? false });
  if (spec.fromSeq === undefined) return source;
  const { fromSeq } = spec;
  return {
    ...source,
    async first() {
      const [first, { created }] = await Promise.all([source.first(), source.facts()]);
      // Sequences are counted in the stream of today.
      return first.stream === created ? { ...first, next: Math.max(first.next, fromSeq) } : { stream: created, next: fromSeq };
    },
  };
}

/** Age of the oldest message that the live projection has not stored; undefined while it does not move. */
export function liveLag({ nc, settings }: Projection): () => Promise<number | undefined> {
  const generations = generationsRegister(nc, settings.site);
  const seen = new Map<number, number>();
  return async () => {
    const { live } = (await generations.read()).value;
    let worst: number | undefined;
    for (let shard = 0; shard < settings.shards; shard++) {
      const entry = await register<Checkpoint>(nc, checkpointKey(settings.site, live, shard)).read();
      if (entry === undefined) continue;
      const { next } = entry.value;
      const moved = seen.get(shard) !== next;
      seen.set(shard, next);
      const bounds = { messagesMax: 1, bytesMax: 1 };
      const oldest = (await readStream(nc, STREAMS.logs(shard), next, bounds, settings.requestTimeoutMs)).messages[0];
      const lagMs = oldest === undefined ? 0 : Math.max(0, systemClock.now() - oldest.storedMs);
      if (moved || lagMs === 0) worst = Math.max(worst ?? 0, lagMs);
    }
    return worst;
  };
}

// How tables are filled from the archive: for the command line, and for the scheduler.

import type { Library } from "../../lib/archive/library.ts";
import { ArchiveDamaged } from "../../lib/archive/library.ts";
import { incarnationOf } from "../../lib/archive/manifest.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Values } from "../../lib/base/config.ts";
import { RelogError } from "../../lib/base/errors.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import type { Checkpoint } from "../../lib/projector/checkpoint.ts";
import { mayRelease } from "../../lib/projector/checkpoint.ts";
import { failpointFrom } from "../../lib/projector/failpoint.ts";
import { judgeWanted } from "../../lib/projector/message.ts";
import type { Source } from "../../lib/projector/source.ts";
import { SequencesMissing, StreamReplaced } from "../../lib/projector/source.ts";
import type { Cut, Rehydration, rehydrateSettings } from "../../lib/rehydrate/job.ts";
import { KEYS } from "../../lib/rehydrate/job.ts";
import type { FillPlan, RehydratePorts, Work, Workers } from "../../lib/rehydrate/ports.ts";
import type { Incarnation, Range, ShardPlan } from "../../lib/rehydrate/ranges.ts";
import { isIn, nextRange, planShard } from "../../lib/rehydrate/ranges.ts";
import { pacer } from "../../lib/replay/pace.ts";
import { ARCHIVE_DATABASE } from "../../lib/store/isolation.ts";
import {
  countSideTable,
  createSideTable,
  dropSideTable,
  hideSideTable,
  isTrimmed,
  requireLogs,
  showSideTable,
  sideTableName,
  trimSideTable,
} from "../../lib/store/side.ts";
import { forget, keysOf, register } from "../../lib/streams/cas.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import { acquire } from "../../lib/streams/lease.ts";
import { streamState } from "../../lib/streams/read.ts";
import { crew } from "./crew.ts";
import type { Otherwise, Projection } from "./projection.ts";
import { shardWorker } from "./projection.ts";
import type { rebuildSettings } from "./rebuild.ts";
import { liveLag } from "./rebuild.ts";
import { shardSource } from "./source.ts";

type RehydrateValues = Values<typeof rehydrateSettings> & Values<typeof rebuildSettings>;

/** What works on tables from the archive of this process's site. */
export function rehydrating(parts: Projection, settings: RehydrateValues): RehydratePorts {
  const { nc, clickhouse, owner } = parts;
  const { site, shards, cluster, leaseMs } = parts.settings;
  const checkpointOf = (job: Rehydration, shard: number) => register<Checkpoint>(nc, KEYS.checkpoint(site, job, shard));

  return {
    clock: systemClock,
    leaseMs,
    owner,
    expiresMs: settings.rehydrateExpiresMs,
    expiresMaxMs: settings.rehydrateExpiresMaxMs,
    generations: generationsRegister(nc, site),
    newId: () => newBatchId(systemClock.now()),
    job: (name) => register<Rehydration>(nc, KEYS.job(site, name)),
    names: async () => (await keysOf(nc, KEYS.jobs(site))).map((key) => key.slice(KEYS.job(site, "").length)),
    forget: (name) => forget(nc, KEYS.job(site, name)),
    requireArchive: () => void libraryIn(parts),
    cuts: () =>
      Promise.all(
        Array.from({ length: shards }, async (_, shard): Promise<Cut> => {
          const { created, lastSeq } = await streamState(nc, STREAMS.logs(shard));
          return { stream: created, lastSeq };
        }),
      ),
    plan: (job, cuts) => planOf(parts, job, cuts),
    places: (job) => Promise.all(Array.from({ length: shards }, async (_, shard) => (await checkpointOf(job, shard).read())?.value)),
    work: (work) => workers(parts, settings, work),
    async ownShards(job, signal) {
      await using owned = new AsyncDisposableStack();
      for (let shard = 0; shard < shards; shard++) {
        const seat = checkpointOf(job, shard);
        if ((await seat.read()) === undefined) continue;
        const none = async (): Promise<never> => {
          throw new Error(`the checkpoint of archive_${job.name}, shard ${shard} went away`);
        };
        // Not the name that a worker of this very process has: that one must have left.
        const claim = await acquire({ register: seat, clock: systemClock, owner: `${owner}/drop`, leaseMs }, none, signal);
        if (claim === undefined) throw new Error(`archive_${job.name} is still being filled`);
        owned.use(claim);
      }
      return owned.move();
    },
    forgetShards: (name) => forget(nc, KEYS.checkpoints(site, name)),
    requireLogs: (generation) => requireLogs(clickhouse, generation),
    createTable: (name, generation) => createSideTable(clickhouse, name, generation, cluster),
    dropTable: (name) => dropSideTable(clickhouse, name, cluster),
    show: (name, generation) => showSideTable(clickhouse, name, generation, cluster),
    hide: (name, generation) => hideSideTable(clickhouse, name, generation, cluster),
    trim: (job) => trimSideTable(clickhouse, job.name, rangeMs(job), cluster),
    trimmed: (name) => isTrimmed(clickhouse, name, cluster),
    count: (name) => countSideTable(clickhouse, name),
    failpoint: failpointFrom(parts.settings.failpoint, "rehydrate-"),
  };
}

function rangeMs({ since, until }: Pick<Rehydration, "since" | "until">) {
  return { sinceMs: Date.parse(since), untilMs: Date.parse(until) };
}

/** @throws RelogError bad_request where there is none */
function libraryIn({ library }: Pick<Projection, "library">): Library {
  if (library === undefined) throw new RelogError("bad_request", "there is no archive to bring records back from: set RELOG_ARCHIVE");
  return library;
}

async function planOf(
  parts: Projection,
  { since, until, tenant }: Pick<Rehydration, "since" | "until" | "tenant">,
  cuts: readonly Cut[],
): Promise<FillPlan> {
  const wanted = { ...rangeMs({ since, until }), tenant };
  const library = libraryIn(parts);
  const shards: ShardPlan[] = [];
  const flaws: string[] = [];
  for (const [shard, cut] of cuts.entries()) {
    await library.refresh(shard);
    shards.push(planShard(shard, await incarnationsOf(parts, library, shard, cut), wanted));
    // What a manifest would say that cannot be read, nobody knows; damaged segments are met only where they are read.
    flaws.push(...(await library.flaws(shard)).filter(({ kind }) => kind === "manifest").map(({ detail }) => detail));
  }
  return { shards, flaws };
}

/** The streams of a shard up to the cut, oldest first, each as far as it can be read from anywhere. */
async function incarnationsOf({ nc }: Projection, library: Library, shard: number, cut: Cut): Promise<Incarnation[]> {
  const before = (created: string): boolean => incarnationOf(created) < incarnationOf(cut.stream);
  const found: Incarnation[] = [];
  for (const stream of [...(await library.incarnations(shard)).filter(before), cut.stream]) {
    const sealed = await library.manifests(shard, stream);
    if (stream !== cut.stream) {
      found.push({ stream, from: sealed[0]!.from, to: sealed.at(-1)!.to, sealed });
      continue;
    }
    const { created, firstSeq } = await streamState(nc, STREAMS.logs(shard));
    const held = created === cut.stream ? firstSeq : Number.POSITIVE_INFINITY;
    const from = Math.min(held, sealed[0]?.from ?? Number.POSITIVE_INFINITY);
    found.push({ stream, from: Number.isFinite(from) ? from : 1, to: cut.lastSeq, sealed });
  }
  return found;
}

function workers(parts: Projection, settings: RehydrateValues, work: Work): Workers {
  const pace = pacer(settings.rebuildRate, { clock: systemClock, liveLagMs: liveLag(parts) });
  return crew((leave, abandon) => work.plan.shards.map((plan) => fillShard(parts, work, plan, pace, [leave, abandon])));
}

/** One range after the other under one checkpoint: between them the checkpoint jumps. */
async function fillShard(
  parts: Projection,
  { job, stored, refused }: Work,
  plan: ShardPlan,
  pace: Otherwise["pace"],
  signals: readonly [leave: AbortSignal, abandon: AbortSignal],
): Promise<void> {
  const { nc, settings } = parts;
  const { shard } = plan;
  const key = KEYS.checkpoint(settings.site, job, shard);
  const name = `${settings.site}/${sideTableName(job.name)}/${shard}`;
  // Nothing comes that a plan could wait for, and no class of retention concerns a table that expires as a whole.
  const filling: Projection = { ...parts, settings: { ...settings, lingerMs: 0 } };
  for (;;) {
    const at = (await register<Checkpoint>(nc, key).read())?.value;
    const range = nextRange(plan, at);
    if (range === undefined || signals[0].aborted) return;
    if (at !== undefined && !isIn(range, at)) {
      await jump(parts, key, at, range, signals[0]);
      continue;
    }
    const otherwise: Otherwise = {
      name,
      key,
      database: ARCHIVE_DATABASE,
      table: sideTableName(job.name),
      source: sourceOf(parts, shard, range, job.skipMissing),
      end: { stream: range.stream, next: range.to + 1 },
      judge: judgeWanted(wantedBy(job)),
      tenants: { ...parts.policy, daysOf: () => 0 },
      stored,
      background: true,
      isFatal: (error) => error instanceof SequencesMissing || error instanceof ArchiveDamaged || error instanceof StreamReplaced,
      // It is among the dead letters since it was projected the first time.
      async park({ message, reason, detail }) {
        refused();
        parts.log.warn({ shard: name, seq: message.seq, reason, detail }, "left out: it cannot be stored");
      },
      ...(pace === undefined ? {} : { pace }),
    };
    await shardWorker(filling, 0, shard, signals, otherwise).run();
  }
}

/** Moves a checkpoint that has no plan from where it was seen to the beginning of a range. */
async function jump(
  { nc, owner, settings: { leaseMs } }: Projection,
  key: string,
  from: Checkpoint,
  range: Range,
  leave: AbortSignal,
): Promise<void> {
  const none = async (): Promise<never> => {
    throw new Error(`the checkpoint ${key} went away`);
  };
  const lease = { register: register<Checkpoint>(nc, key), clock: systemClock, owner, leaseMs, mayRelease };
  await using claim = await acquire(lease, none, leave);
  // Another owner may have been here meanwhile: then the next look at the checkpoint says what to do.
  const { plan, stream, next } = claim?.value ?? from;
  if (plan === null && stream === from.stream && next === from.next) await claim?.change({ stream: range.stream, next: range.from });
}

function wantedBy(job: Rehydration) {
  const { sinceMs, untilMs } = rangeMs(job);
  const [since, until] = [BigInt(sinceMs) * 1_000_000n, BigInt(untilMs) * 1_000_000n];
  return ({ tenant, minTimestamp, maxTimestamp }: { tenant: string; minTimestamp: bigint; maxTimestamp: bigint }): boolean =>
    (job.tenant === "" || tenant === job.tenant) && maxTimestamp >= since && minTimestamp < until;
}

/** A range of the history, and nothing else. */
function sourceOf({ nc, library, settings }: Projection, shard: number, range: Range, skipMissing: boolean): Source {
  const source = shardSource(nc, shard, { library, timeoutMs: settings.requestTimeoutMs, history: true, skipMissing });
  return {
    ...source,
    async read(created, from, bounds) {
      if (from > range.to) return { messages: [], pending: 0, missing: undefined };
      return await source.read(created, from, bounds);
    },
    first: async () => ({ stream: range.stream, next: range.from }),
    // Asked when nothing more comes of a stream that was replaced, though the range is not at its end.
    async following(created) {
      if (skipMissing) return { stream: range.stream, next: range.to + 1 };
      throw new SequencesMissing(`shard ${shard}: the stream that was created at ${created} ended before ${range.to} was sealed`);
    },
  };
}

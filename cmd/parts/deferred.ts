// How quotas that are used up are put together: deferring and dropping at the gateway, releasing in the scheduler.

import type { Clock } from "../../lib/base/clock.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Values } from "../../lib/base/config.ts";
import { duration } from "../../lib/base/config.ts";
import type { Health } from "../../lib/base/health.ts";
import { sleep } from "../../lib/base/loop.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import { Backlog } from "../../lib/deferred/backlog.ts";
import type { GapPorts, OpenGap } from "../../lib/deferred/gaps.ts";
import { GAP_KEYS, Gaps, gapKey, sweepGaps } from "../../lib/deferred/gaps.ts";
import { deferredMetrics, releaseEvents, watchDeferred } from "../../lib/deferred/metrics.ts";
import { purgeDeferred } from "../../lib/deferred/purge.ts";
import type { ReleasePorts, ReleaseQuota, ReleaseStep, Releasing } from "../../lib/deferred/release.ts";
import { RELEASE_KEY, runReleases } from "../../lib/deferred/release.ts";
import { STREAMS, SUBJECTS } from "../../lib/event/envelope.ts";
import type { OverQuota } from "../../lib/ingest/over-quota.ts";
import { overQuota } from "../../lib/ingest/over-quota.ts";
import type { QuotaPort } from "../../lib/ingest/quota.ts";
import { failpointFrom } from "../../lib/projector/failpoint.ts";
import type { Job } from "../../lib/scheduler/jobs.ts";
import type { Append } from "../../lib/streams/append.ts";
import { appender } from "../../lib/streams/append.ts";
import { forget, keysOf, register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import {
  deferredAt,
  deferredByTenant,
  deferredState,
  nextDeferred,
  purgeDeferredOf,
  removeDeferredUpTo,
} from "../../lib/streams/deferred.ts";
import { knownId } from "../../lib/streams/known.ts";
import { lastSeqOf, messageAt, partName, storedBehind, storedUnder } from "../../lib/streams/stored.ts";

export const gapSettings = {
  gapIntervalMs: duration("RELOG_GAP_INTERVAL", "1m", "how long one gap record of a tenant grows while a quota drops its records"),
};

/** How long gaps may take to be written when the process leaves; others write what is left. */
const FINISH_MS = 2_000;
const NEVER = new AbortController().signal;

/** What counting drops and closing gaps need of a connection. @param signal ends a look at what is stored already */
export function openGapPorts(
  nc: NatsConnection,
  shards: number,
  append: Append,
  stored: GapPorts["stored"],
  clock: Clock,
  signal = NEVER,
): GapPorts {
  return {
    register: (key) => register<OpenGap>(nc, key),
    keys: () => keysOf(nc, GAP_KEYS),
    forget: (key) => forget(nc, key),
    append,
    lastSeq: (shard) => lastSeqOf(nc, shard),
    isStored: async (shard, tenant, batch, seq) =>
      (await storedBehind(nc, shard, tenant, new Set([partName(batch, 1)]), seq, signal)).size > 0,
    stored,
    shards,
    clock,
  };
}

interface OverQuotaSettings extends Values<typeof gapSettings> {
  readonly shards: number;
  readonly deferGraceMs: number;
}

/** What a gateway does over a quota. Returns when it has seen DEFERRED once, or the signal aborts. */
export async function openOverQuota(
  nc: NatsConnection,
  settings: OverQuotaSettings,
  append: Append,
  quotas: QuotaPort,
  health: Health,
  telemetry: Telemetry,
  signal: AbortSignal,
  clock: Clock = systemClock,
): Promise<OverQuota & AsyncDisposable> {
  const backlog = new Backlog(() => deferredByTenant(nc), clock);
  await backlog.begin(health, signal);
  const portsUntil = (until?: AbortSignal) => openGapPorts(nc, settings.shards, append, (message) => quotas.stored(message), clock, until);
  const gaps = new Gaps(portsUntil(), settings.gapIntervalMs);
  const leave = new AbortController();
  const report = (why: string | undefined): void => health.warn("gaps", why);
  const work = [
    backlog.follow(health, leave.signal),
    gaps.follow(report, leave.signal),
    sweepGaps(portsUntil(leave.signal), (why) => health.warn("gaps of others", why), leave.signal),
  ];
  const over = overQuota(
    {
      quotas,
      backlog,
      known: async (place, shard, tenant, id) => (await knownId(nc, SUBJECTS[place](shard, tenant), id)) !== undefined,
      count: async (drop) => ({ ...(await gaps.add(drop)), stream: `KV_${STREAMS.projections}` }),
    },
    settings.shards,
    settings.deferGraceMs,
    clock,
    telemetry,
  );
  return {
    ...over,
    async [Symbol.asyncDispose]() {
      leave.abort();
      await Promise.all(work);
      const patience = new AbortController();
      const written = gaps.write(true).catch((error: unknown) => telemetry.log.warn({ err: error }, "gaps are left for others to write"));
      await Promise.race([written, sleep(FINISH_MS, patience.signal)]);
      patience.abort();
    },
  };
}

export interface ReleaseParts {
  readonly nc: NatsConnection;
  readonly settings: {
    readonly shards: number;
    readonly leaseMs: number;
    readonly deferGraceMs: number;
    readonly dedupeWindowMs: number;
    readonly failpoint: string;
  } & Parameters<typeof appender>[1];
  readonly quota: ReleaseQuota;
  readonly owner: string;
  readonly health: Health;
  readonly telemetry: Telemetry;
  readonly clock?: Clock;
}

/** What a releaser works with. */
export function releasePorts({ nc, settings, quota, owner, telemetry, clock = systemClock }: ReleaseParts): ReleasePorts {
  return {
    lease: { register: register<Releasing>(nc, RELEASE_KEY), owner, leaseMs: settings.leaseMs },
    clock,
    shards: settings.shards,
    byTenant: () => deferredByTenant(nc),
    next: (tenant, seq) => nextDeferred(nc, tenant, seq),
    at: (seq) => deferredAt(nc, seq),
    removeUpTo: (tenant, seq) => removeDeferredUpTo(nc, tenant, seq),
    append: appender(nc, settings),
    storedAt: (stream, seq) => messageAt(nc, stream, seq),
    lastSeq: (shard) => lastSeqOf(nc, shard),
    storedBehind: (...of) => storedBehind(nc, ...of),
    storedUnder: (...of) => storedUnder(nc, ...of),
    dedupeWindowMs: settings.dedupeWindowMs,
    appendTimeoutMs: settings.appendTimeoutMs,
    quota,
    failpoint: failpointFrom<ReleaseStep>(settings.failpoint, "deferred-"),
    events: releaseEvents(telemetry),
    log: telemetry.log,
  };
}

/** The jobs of the scheduler: releasing, watching, and closing gaps that gateways left. */
export function deferredJobs(parts: ReleaseParts): Job[] {
  const { nc, settings, quota, health, telemetry, clock = systemClock } = parts;
  const ports = releasePorts(parts);
  const append = appender(nc, settings);
  const gaps = (signal: AbortSignal) => openGapPorts(nc, settings.shards, append, (message) => quota.stored(message), clock, signal);
  deferredMetrics(telemetry, clock, () => deferredState(nc));
  return [
    { name: "deferred-release", run: (signal) => runReleases(ports, settings.deferGraceMs, signal) },
    { name: "deferred-watch", run: (signal) => watchDeferred(health, () => deferredState(nc), signal) },
    { name: "gaps", run: (signal) => sweepGaps(gaps(signal), (why) => health.warn("gaps", why), signal) },
  ];
}

/** Removes what waits of a tenant that is deleted, its registers of gaps aside; before LOGS is purged. @throws NatsError; doing it again is harmless */
export async function purgeDeferredTenant(nc: NatsConnection, tenant: string): Promise<number> {
  const ports = {
    purge: (of: string) => purgeDeferredOf(nc, of),
    releasing: async () => (await register<Releasing>(nc, RELEASE_KEY).read())?.value,
  };
  return await purgeDeferred(ports, tenant);
}

/** A gap that is still being counted, by the id that its record will have. @throws NatsError */
export async function openGap(nc: NatsConnection, tenant: string, batch: string): Promise<OpenGap | undefined> {
  return (await register<OpenGap>(nc, gapKey(tenant, batch)).read())?.value;
}

/** Without quotas everything that waits has room. */
export const NO_RELEASE_QUOTA: ReleaseQuota = {
  left: () => ({ records: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY }),
  stored: () => undefined,
};

// How the removal of deleted tenants is put together.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Run } from "../../lib/accounts/accounts.ts";
import type { Directory } from "../../lib/accounts/directory.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { sleep } from "../../lib/base/loop.ts";
import type { Erasure } from "../../lib/erasure/job.ts";
import { erasureKey } from "../../lib/erasure/job.ts";
import type { ErasurePorts, Remains, Tombstone } from "../../lib/erasure/ports.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import { failpointFrom } from "../../lib/projector/failpoint.ts";
import type { LogsTable } from "../../lib/store/erase.ts";
import { logsTables, removalFrom, removeTenant, rowsOfTenant } from "../../lib/store/erase.ts";
import { killInserts } from "../../lib/store/insert.ts";
import { forget, keysOf, register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { countSubject, forgetMatching, purgeSubject, remainingIn } from "../../lib/streams/erase.ts";
import type { Leased } from "../../lib/streams/lease.ts";
import { acquire } from "../../lib/streams/lease.ts";
import { purgeDeferredTenant } from "./deferred.ts";
import type { Projection } from "./projection.ts";

/** Registers that speak of one tenant. */
const NAMING = (tenant: string): string[] => [`gap.${tenant}`, `gap.${tenant}.>`, `names.${tenant}`, `names.${tenant}.>`];
const KEPT = [
  "CONTROL: the tenant's name, its title and who did what to its account, without keys' secrets",
  "usage: what it was billed for",
];

/** Seats of whoever stores records: projections, rebuilds of a tenant, tables from the archive, retries. */
interface Seat extends Leased {
  readonly accounts?: number;
  readonly plan: { readonly token: string } | null;
}

/** What removes deleted tenants from this process's site. @param keepMs how long a stream keeps what is archived */
export function erasing(
  parts: Projection,
  directory: Directory,
  run: Run,
  closeUsage: ErasurePorts["closeUsage"],
  keepMs: number,
): ErasurePorts {
  const { nc, clickhouse, settings } = parts;
  const { site, shards, cluster, leaseMs } = settings;
  const seat = (tenant: string) => register<Erasure>(nc, erasureKey(site, tenant));
  const nameOf = ({ database, table }: LogsTable): string => `${database}.${table}`;
  const tableOf = (name: string): LogsTable => {
    const [database, table] = name.split(".") as [string, string];
    return { database, table };
  };
  // Asked every second, of accounts that hardly change.
  let open: { readonly position: number; readonly tombstones: readonly Tombstone[] } | undefined;
  const openAt = (position: number): readonly Tombstone[] => {
    if (open?.position !== position) open = { position, tombstones: tombstones(directory, site) };
    return open.tombstones;
  };
  return {
    site,
    clock: systemClock,
    owner: `${parts.owner}/erasure`,
    leaseMs,
    open: () => openAt(directory.position),
    register: seat,
    async tidy() {
      const wanted = new Set(tombstones(directory, site).map(({ tenant }) => erasureKey(site, tenant)));
      for (const key of await keysOf(nc, erasureKey(site, "*"))) if (!wanted.has(key)) await forget(nc, key);
    },
    forget: (tenant) => forget(nc, erasureKey(site, tenant)),
    unaware: (seq, signal) => unaware(parts, seq, signal),
    tables: async () => (await logsTables(clickhouse)).map(nameOf),
    rows: (table, tenant) => rowsOfTenant(clickhouse, tableOf(table), tenant, cluster),
    closeUsage,
    remove: (table, tenant) => removeTenant(clickhouse, tableOf(table), tenant, cluster),
    removal: (table) => removalFrom(clickhouse, tableOf(table), cluster),
    async messages(tenant) {
      const deadLetters = await countSubject(nc, STREAMS.deadLetters, `dead.*.${tenant}`);
      return { deadLetters, deferred: await countSubject(nc, STREAMS.deferred, `deferred.*.${tenant}`) };
    },
    async purge(tenant) {
      await purgeSubject(nc, STREAMS.deadLetters, `dead.*.${tenant}`);
      await purgeDeferredTenant(nc, tenant);
    },
    forgetNames: (tenant) => forgetMatching(nc, NAMING(tenant)),
    remains: (tenant) => remains(parts, shards, tenant, keepMs),
    async certify(tenant, certificate) {
      const command = { type: "certify_erasure", certificate: { ...certificate, tables: [...certificate.tables] } } as const;
      await run(tenant, command as Parameters<Run>[1], { who: "relog", where: `scheduler@${hostname()}`, operator: true });
    },
    failpoint: failpointFrom(settings.failpoint, "erasure-"),
  };
}

function tombstones(directory: Directory, site: string): Tombstone[] {
  return directory.accounts().flatMap(({ tenant, status, deletedMs, erased }) => {
    if (status !== "deleted" || erased.some((certificate) => certificate.site === site)) return [];
    return [{ tenant, deleted: new Date(deletedMs).toISOString(), seq: directory.known(tenant).lastSeq }];
  });
}

/** How long a projector that is there may take to say what it knows, an idle one's look included. */
const SAY_MS = 3_000;
const LOOK_MS = 200;

async function unaware(parts: Projection, seq: number, signal: AbortSignal): Promise<string[]> {
  const { nc, settings } = parts;
  const { site } = settings;
  const patterns = [`checkpoint.${site}.>`, `rehydrate.${site}.>`, `rebuild-tenant.${site}.>`, `retry.${site}.*`];
  const keys = (await Promise.all(patterns.map((pattern) => keysOf(nc, pattern)))).flat();
  const found = await Promise.all(keys.map(async (key) => ((await isAware(parts, key, seq, signal)) ? [] : [key])));
  return found.flat().sort();
}

/**
 * Whether whoever holds a seat leaves out tenants that were deleted before `seq` of CONTROL. Who is there says so itself; a seat
 * that nobody holds is told, so that the next owner learns as much before it stores anything.
 */
async function isAware(parts: Projection, key: string, seq: number, signal: AbortSignal): Promise<boolean> {
  const { nc, clickhouse, settings, owner } = parts;
  const seat = register<Seat>(nc, key);
  let free = false;
  const knows = async (): Promise<boolean> => {
    const now = (await seat.read())?.value;
    free = now?.owner === "";
    return now === undefined || (now.accounts ?? 0) >= seq;
  };
  for (const end = systemClock.monotonicMs() + SAY_MS; systemClock.monotonicMs() < end; await sleep(LOOK_MS, signal)) {
    signal.throwIfAborted();
    if (await knows()) return true;
    if (free) break;
  }
  const lease = {
    register: seat,
    clock: systemClock,
    owner: `${owner}/${randomUUID()}`,
    leaseMs: settings.leaseMs,
    mayRelease: ({ plan }: Seat) => plan === null,
  };
  const none = async (): Promise<never> => {
    throw new Error(`${key} went away`);
  };
  const patience = AbortSignal.any([signal, AbortSignal.timeout(settings.leaseMs + SAY_MS)]);
  await using claim = await acquire(lease, none, patience);
  if (claim === undefined) return await knows();
  // Nobody's insert begins any more, and one that runs is ended here: the next owner settles the plan without the tenant.
  if (claim.value.plan !== null) await killInserts(clickhouse, claim.value.plan.token, settings.cluster);
  await claim.change({ accounts: Math.max(seq, claim.value.accounts ?? 0) });
  return true;
}

async function remains({ nc, library }: Projection, shards: number, tenant: string, keepMs: number): Promise<Remains> {
  const streams: Remains["streams"][number][] = [];
  for (let shard = 0; shard < shards; shard++) {
    const left = await remainingIn(nc, shard, tenant);
    if (left === undefined) continue;
    const { stream, messages, firstSeq, lastSeq, lastMs, ageMaxMs } = left;
    const ageMs = ageMaxMs > 0 ? ageMaxMs : library === undefined ? 0 : keepMs;
    const until = ageMs === 0 ? null : new Date(lastMs + ageMs).toISOString();
    streams.push({ stream, messages, first_seq: firstSeq, last_seq: lastSeq, until });
  }
  return { streams, archive: library === undefined ? null : await archived(library, shards, tenant), kept: KEPT };
}

async function archived(library: NonNullable<Projection["library"]>, shards: number, tenant: string) {
  const sum = { segments: 0, messages: 0, records: 0, bytes: 0 };
  for (let shard = 0; shard < shards; shard++) {
    await library.refresh(shard);
    for (const created of await library.incarnations(shard)) {
      for (const { tenants } of await library.manifests(shard, created)) {
        const own = Object.hasOwn(tenants, tenant) ? tenants[tenant] : undefined;
        if (own === undefined) continue;
        sum.segments++;
        sum.messages += own.messages;
        sum.records += own.records;
        sum.bytes += own.bytes;
      }
    }
  }
  return sum;
}

/** How far the removal of a tenant is, for each site that works at it. @throws NatsError */
export async function erasuresOf(nc: NatsConnection, tenant: string): Promise<(Pick<Erasure, "phase" | "error"> & { site: string })[]> {
  const keys = await keysOf(nc, erasureKey("*", tenant));
  const found = await Promise.all(
    keys.map(async (key) => ({ site: key.split(".")[1]!, job: (await register<Erasure>(nc, key).read())?.value })),
  );
  return found.flatMap(({ site, job }) => (job === undefined ? [] : [{ site, phase: job.phase, error: job.error }]));
}

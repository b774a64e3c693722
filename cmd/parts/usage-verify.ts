// How usage is verified: the log as projections read it, minus what is parked, against both tables.

import { DAY_MS, systemClock } from "../../lib/base/clock.ts";
import { RelogError } from "../../lib/base/errors.ts";
import { mayHaveLeft } from "../../lib/event/retention.ts";
import { pacer } from "../../lib/replay/pace.ts";
import { QUARTER_MS, usageStore } from "../../lib/store/usage.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import type { UsageVerification } from "../../lib/usage/verify.ts";
import { verifyUsage } from "../../lib/usage/verify.ts";
import { Letters } from "../../lib/verify/letters.ts";
import type { Projection } from "./projection.ts";
import { liveLag } from "./rebuild.ts";
import { shardSource } from "./source.ts";
import { lettersOf, wholeLog } from "./verify.ts";

export interface UsageAsked {
  /** Milliseconds since the epoch; seven days back, and what is closed, when they are absent. */
  readonly sinceMs: number | undefined;
  readonly untilMs: number | undefined;
  readonly tenant: string | undefined;
  /** Records a second; 0 is without limit. */
  readonly rate: number;
}

const BACK_MS = 7 * DAY_MS;
const AHEAD_MS = 3_600_000;
const quarterAt = (ms: number): number => Math.floor(ms / QUARTER_MS) * QUARTER_MS;

/** Recomputes usage and compares it. @throws RelogError bad_request when there is none to compare */
export async function verifyingUsage(
  parts: Projection,
  { sinceMs, untilMs, tenant, rate }: UsageAsked,
  signal: AbortSignal,
  progress?: (records: number) => void,
): Promise<UsageVerification> {
  const { nc, clickhouse, settings, policy, library } = parts;
  const { site, shards, cluster } = settings;
  const store = usageStore(clickhouse, cluster);
  const { live: generation, born } = (await generationsRegister(nc, site).read()).value;
  const lacking = await store.lacking(generation);
  if (lacking !== undefined) throw new RelogError("bad_request", lacking);
  await store.create();
  const closedUntilMs = await store.closedUntilMs();
  // Nothing was observed in the future, but clocks differ.
  const until = quarterAt(Math.min(untilMs ?? closedUntilMs, systemClock.now() + AHEAD_MS));
  const since = quarterAt(sinceMs ?? Math.max(0, until - BACK_MS));
  if (until <= since) throw new RelogError("bad_request", "nothing is closed in that time: the scheduler closes usage, or give --until");
  await policy.refresh();
  const letters = await Letters.read(lettersOf(nc, site, generation, signal));
  const log = wholeLog(nc, library);
  const options = { library, timeoutMs: settings.requestTimeoutMs, history: true, skipMissing: true };
  const sources = Array.from({ length: shards }, (_, shard) => shardSource(nc, shard, options));
  const ports = {
    log: {
      shards,
      spans: (shard: number) => log.spans(shard),
      read: (shard: number, ...[created, from, bounds]: Parameters<(typeof sources)[number]["read"]>) =>
        sources[shard]!.read(created, from, bounds),
    },
    parked: (shard: number, seq: number, batch: string) => letters.of(shard, seq, batch),
    // Rows keep the class that they were stored with: any class that the tenant had since the generation was begun.
    expired: (of: string, timestampNs: bigint, atMs: number) => mayHaveLeft(policy, of, timestampNs, atMs, born[generation] ?? 0),
    removed: policy.isDeleted,
    stored: (fromMs: number, toMs: number) => store.stored(generation, tenant, fromMs, toMs),
    pace: pacer(rate, { clock: systemClock, liveLagMs: liveLag(parts) }),
    nowMs: systemClock.now,
  };
  return await verifyUsage(ports, { sinceMs: since, untilMs: until, closedUntilMs, tenant }, signal, progress);
}

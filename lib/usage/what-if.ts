// Limits replayed over the usage there was: pure.
//
// Promises: each limit is replayed by itself, as if the others were not there; a quota counts from the beginning of its window,
// also where that lies before what is shown. Usage is known by quarters of an hour, so peaks within one are not seen: what is over
// a limit per second is at least what is said.

import type { Quarter } from "../store/usage.ts";
import { QUARTER_MS } from "../store/usage.ts";
import type { QuotaName } from "./quotas.ts";
import { partsOf, QUOTAS } from "./quotas.ts";

export const RATES = ["ingest_records_per_second", "ingest_bytes_per_second"] as const;
export const REPLAYED = [...QUOTAS, ...RATES] as const;
export type ReplayedName = (typeof REPLAYED)[number];
export type ReplayedLimits = Readonly<Partial<Record<ReplayedName, number | undefined>>>;

/** What of a day would have been beyond a limit. */
export interface OverDay {
  readonly dayMs: number;
  /** The quarter of an hour in which the limit was first passed, on this day; null when it had been passed before. */
  readonly hitMs: number | null;
  readonly records: number;
  readonly bytes: number;
}

export interface Replay {
  readonly limit: ReplayedName;
  readonly value: number;
  /** Whether more may have been over it than is said. */
  readonly atLeast: boolean;
  readonly records: number;
  readonly bytes: number;
  /** Only days on which something was over. */
  readonly days: readonly OverDay[];
}

/**
 * Replays limits over quarters, in order, from the beginning of the first one's month.
 * @param sinceMs where what is told begins
 */
export function whatIf(quarters: readonly Quarter[], limits: ReplayedLimits, sinceMs: number): Replay[] {
  return REPLAYED.flatMap((limit) => {
    const value = limits[limit];
    return value === undefined ? [] : [replay(quarters, limit, value, sinceMs)];
  });
}

const isQuota = (name: ReplayedName): name is QuotaName => (QUOTAS as readonly string[]).includes(name);

function replay(quarters: readonly Quarter[], limit: ReplayedName, value: number, sinceMs: number): Replay {
  const over = isQuota(limit) ? overQuota(limit, value) : overRate(limit, value);
  const days = new Map<number, { hitMs: number | null; records: number; bytes: number }>();
  for (const quarter of quarters) {
    const { share, first } = over(quarter);
    if (share === 0 || quarter.quarterMs < sinceMs) continue;
    const day = days.get(quarter.dayMs) ?? { hitMs: null, records: 0, bytes: 0 };
    days.set(quarter.dayMs, day);
    if (first) day.hitMs ??= quarter.quarterMs;
    day.records += Math.round(quarter.records * share);
    day.bytes += Math.round(quarter.bytes * share);
  }
  const told = [...days].map(([dayMs, day]) => ({ dayMs, ...day }));
  const sum = (of: "records" | "bytes"): number => told.reduce((total, day) => total + day[of], 0);
  return { limit, value, atLeast: !isQuota(limit), records: sum("records"), bytes: sum("bytes"), days: told };
}

/** The share of a quarter's usage that is beyond, and whether it is the first that is. */
type Over = (quarter: Quarter) => { readonly share: number; readonly first: boolean };

function overQuota(quota: QuotaName, limit: number): Over {
  const { of, per } = partsOf(quota);
  let [windowMs, used] = [Number.NaN, 0];
  return (quarter) => {
    const window = per === "day" ? quarter.dayMs : quarter.monthMs;
    if (window !== windowMs) [windowMs, used] = [window, 0];
    const amount = quarter[of];
    const before = used;
    used += amount;
    const beyond = Math.max(0, used - Math.max(limit, before));
    return { share: amount === 0 ? 0 : beyond / amount, first: beyond > 0 && before <= limit };
  };
}

function overRate(rate: (typeof RATES)[number], perSecond: number): Over {
  const of = rate === "ingest_records_per_second" ? "records" : "bytes";
  return (quarter) => {
    const beyond = Math.max(0, quarter[of] - (perSecond * QUARTER_MS) / 1_000);
    return { share: beyond === 0 ? 0 : beyond / quarter[of], first: beyond > 0 };
  };
}

// How long records stay in the tables: retention classes in whole days, by tenant: the account's, else the settings'.
//
// Promises: a record leaves with its day (UTC, by its own timestamp) and its class, as a whole partition; what has left the
// tables may still be in the streams and the archive, but no rebuild brings it back.

import { DAY_MS, DAY_NS } from "../base/clock.ts";
import type { Environment, Values } from "../base/config.ts";
import { integer, text } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import { isTenant } from "./envelope.ts";

export const retentionSettings = {
  retentionDays: integer(
    "RELOG_RETENTION_DAYS",
    "0",
    [0, 36_500],
    "days",
    "how long records stay searchable, counted from their own timestamp's day; 0 keeps them for ever; retention_days of a tenant comes first",
  ),
  retentionTenants: text(
    "RELOG_RETENTION_TENANTS",
    "",
    "tenants with another class, as tenant:days separated by commas; each class is a partition a day, so use few",
  ),
};

export interface Retention {
  /** Days of tenants that are not listed; 0 is for ever. */
  readonly days: number;
  readonly tenants: ReadonlyMap<string, number>;
}

export const KEEP_FOR_EVER: Retention = { days: 0, tenants: new Map() };

/** Different values over the whole installation: each is a partition a day. */
export const CLASSES_MAX = 16;
const DAYS_MAX = 36_500;

/** A sentence when the settings are wrong, for readSettings. */
export function retentionFault(values: Values<typeof retentionSettings>): string | undefined {
  try {
    readRetention(values);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** @throws Error that says what is wrong with RELOG_RETENTION_TENANTS */
export function readRetention(values: Values<typeof retentionSettings>): Retention {
  const tenants = new Map<string, number>();
  for (const entry of values.retentionTenants.split(",").map((part) => part.trim())) {
    if (entry === "") continue;
    const [tenant = "", days = ""] = entry.split(":");
    if (!isTenant(tenant) || !/^\d{1,5}$/.test(days) || Number(days) > DAYS_MAX)
      throw new Error(`RELOG_RETENTION_TENANTS: "${entry}" is not tenant:days with at most ${DAYS_MAX} days`);
    tenants.set(tenant, Number(days));
  }
  const classes = new Set([...tenants.values(), values.retentionDays]);
  if (classes.size > CLASSES_MAX)
    throw new Error(`RELOG_RETENTION_TENANTS: ${classes.size} classes of days; at most ${CLASSES_MAX}, each is a partition a day`);
  return { days: values.retentionDays, tenants };
}

/** A policy in words that are equal exactly when policies are: "30 a:7,b:0". A tenant of the class of all is not listed. */
export function retentionWords({ days, tenants }: Retention): string {
  const listed = [...tenants].filter(([, own]) => own !== days).map(([tenant, own]) => `${tenant}:${own}`);
  return listed.length === 0 ? `${days}` : `${days} ${listed.sort().join(",")}`;
}

/** @throws Error when these are no words of retentionWords */
export function retentionFromWords(words: string): Retention {
  const match = /^(\d{1,5})(?: (\S+))?$/.exec(words);
  if (match === null) throw new Error(`${JSON.stringify(words)} is no retention`);
  return readRetention({ retentionDays: Number(match[1]), retentionTenants: match[2] ?? "" });
}

export interface Adopted {
  readonly retention: Retention;
  /** A sentence when the environment asks for another policy than the projectors have. */
  readonly conflict: string | undefined;
}

/**
 * The policy to work with besides projectors: theirs, as the register of generations says, else the one of the environment.
 * @param given where the environment's policy was read from
 * @param registered empty before the first projector started
 */
export function adoptRetention(given: Environment, own: Retention, registered: string): Adopted {
  if (registered === "") return { retention: own, conflict: undefined };
  const asked = Object.values(retentionSettings).some(({ env }) => (given[env] ?? "") !== "");
  const differs = asked && retentionWords(own) !== registered;
  return {
    retention: retentionFromWords(registered),
    conflict: differs
      ? `the environment here says retention "${retentionWords(own)}", the projectors write "${registered}" (days, then tenant:days): ` +
        "unset RELOG_RETENTION_DAYS and RELOG_RETENTION_TENANTS here to use theirs, or restart the projectors with yours first"
      : undefined,
  };
}

/** The policy of the projectors. @throws RelogError bad_request when the environment asks for another one */
export function sameRetention(given: Environment, own: Retention, registered: string): Retention {
  const { retention, conflict } = adoptRetention(given, own, registered);
  if (conflict !== undefined) throw new RelogError("bad_request", conflict);
  return retention;
}

/** Days that the settings give a tenant. */
export function retentionOf(retention: Retention, tenant: string): number {
  return retention.tenants.get(tenant) ?? retention.days;
}

/** What becomes of tenants' records now: the accounts' word, and where they say nothing the settings'. */
export interface Policy {
  daysOf(tenant: string): number;
  /** Classes that a tenant's records may have been stored with since a moment, milliseconds since the epoch; today's is one of them. */
  daysSince(tenant: string, sinceMs: number): readonly number[];
  /** Whether the tenant was deleted: nothing of it is stored any more. */
  isDeleted(tenant: string): boolean;
  /** Whether all of a deleted tenant was removed, and that certified. */
  isErased(tenant: string): boolean;
  /** The last sequence of CONTROL that it knows of. */
  position(): number;
  /** Learns everything that CONTROL holds by now. @throws RelogError stream_unavailable */
  refresh(): Promise<void>;
}

/** The classes of a few tenants, as a plan fixes them. */
export interface Classes {
  /** Of tenants that are not listed. */
  readonly days: number;
  readonly tenants: Readonly<Record<string, number>>;
}

export const FOR_EVER: Classes = { days: 0, tenants: {} };

/** The classes of tenants; the most frequent one is not listed. */
export function classesOf({ daysOf }: Pick<Policy, "daysOf">, tenants: Iterable<string>): Classes {
  const all = [...new Set(tenants)].map((tenant) => [tenant, daysOf(tenant)] as const);
  const times = new Map<number, number>();
  for (const [, days] of all) times.set(days, (times.get(days) ?? 0) + 1);
  const [days = 0] = [...times].sort((a, b) => b[1] - a[1])[0] ?? [];
  return { days, tenants: Object.fromEntries(all.filter(([, own]) => own !== days)) };
}

/** The first day, in days since the epoch, that a class still keeps; 0 when it keeps all. */
export function firstDayKept(days: number, nowMs: number): number {
  return days === 0 ? 0 : Math.max(0, Math.floor(nowMs / DAY_MS) - days);
}

/** Whether a record of this time, nanoseconds since the epoch, would have left the tables: one of that class is not stored any more. */
export function isExpired({ daysOf }: Pick<Policy, "daysOf">, tenant: string, timestampNs: bigint, nowMs: number): boolean {
  return timestampNs / DAY_NS < BigInt(firstDayKept(daysOf(tenant), nowMs));
}

/** Whether records of this time that were stored since a moment may have left: under a class that the tenant had once. */
export function mayHaveLeft(policy: Policy, tenant: string, timestampNs: bigint, nowMs: number, sinceMs: number): boolean {
  return policy.daysSince(tenant, sinceMs).some((days) => timestampNs / DAY_NS < BigInt(firstDayKept(days, nowMs)));
}

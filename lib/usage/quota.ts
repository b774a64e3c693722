// What a tenant's quotas say of a call that comes now.
//
// Promises: synchronous; nothing but a look into a map for tenants without quotas, and compares of numbers for the others. A call
// is let in while less than each quota is used, so that the last one may pass it; a refusal says which quota, what was used of
// it and until when, in the tenant's own time, and when it is worth trying again: when every quota that is used up has turned.

import { RelogError } from "../base/errors.ts";
import type { Meter } from "./meter.ts";
import type { Metered } from "./metered.ts";
import type { Calendars } from "./windows.ts";

export const UTC = "UTC";

/** Quotas as accounts have them. */
export interface Terms {
  readonly bytes_per_day?: number | null | undefined;
  readonly bytes_per_month?: number | null | undefined;
  readonly records_per_day?: number | null | undefined;
  readonly records_per_month?: number | null | undefined;
  readonly over_quota?: "reject" | "drop" | "defer" | null | undefined;
  readonly time_zone?: string | null | undefined;
}

const QUOTAS = [
  { name: "records_per_day", measure: "records", period: "day" },
  { name: "bytes_per_day", measure: "bytes", period: "day" },
  { name: "records_per_month", measure: "records", period: "month" },
  { name: "bytes_per_month", measure: "bytes", period: "month" },
] as const;

export type QuotaName = (typeof QUOTAS)[number]["name"];
export type Quota = (typeof QUOTAS)[number] & { readonly limit: number };

/** What a tenant with quotas is held to. */
export interface Held {
  readonly quotas: readonly Quota[];
  readonly over: "reject" | "drop" | "defer";
  readonly zone: string;
}

/** The shape of lib/ingest/quota.ts's. */
export type Verdict =
  | { readonly kind: "within" }
  | {
      readonly kind: "reject" | "drop" | "defer";
      readonly reason: string;
      readonly retryAfterS: number;
      readonly details: { readonly quota: QuotaName; readonly limit: number; readonly used: number; readonly until: string };
    };

const WITHIN: Verdict = { kind: "within" };

export class QuotaDecider {
  readonly #meter: Meter;
  readonly #calendars: Calendars;
  readonly #now: () => number;
  readonly #held = new Map<string, Held>();

  constructor(meter: Meter, calendars: Calendars, now: () => number) {
    this.#meter = meter;
    this.#calendars = calendars;
    this.#now = now;
  }

  /** The tenants that have quotas. */
  get held(): ReadonlyMap<string, Held> {
    return this.#held;
  }

  /** A tenant's quotas are these from now on. */
  set(tenant: string, terms: Terms): void {
    const quotas = QUOTAS.flatMap((quota) => {
      const limit = terms[quota.name];
      return limit === undefined || limit === null ? [] : [{ ...quota, limit }];
    });
    if (quotas.length === 0) this.#held.delete(tenant);
    else this.#held.set(tenant, { quotas, over: terms.over_quota ?? "reject", zone: terms.time_zone ?? UTC });
  }

  /** @throws RelogError not_ready when the tenant has quotas and usage is not read yet */
  verdict(tenant: string): Verdict {
    const held = this.#held.get(tenant);
    if (held === undefined) return WITHIN;
    if (!this.#meter.ready) throw new RelogError("not_ready", "what the tenant used is not read yet", { retryAfterS: 1 });
    const nowMs = this.#now();
    const usedUp = held.quotas.some((quota) => this.#used(tenant, quota, nowMs) >= quota.limit);
    return usedUp ? this.#over(tenant, held, nowMs) : WITHIN;
  }

  /** A message of this process is stored; see Meter.stored. */
  stored(message: Omit<Metered, "observedMs"> & { readonly shard: number; readonly seq: number }): void {
    this.#meter.stored(message);
  }

  /** What may still come until the nearest quota is used up; Infinity where there is none. */
  left(tenant: string): { readonly records: number; readonly bytes: number } {
    const left = { records: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY };
    const nowMs = this.#now();
    for (const quota of this.#held.get(tenant)?.quotas ?? []) {
      const { measure, limit } = quota;
      left[measure] = Math.min(left[measure], Math.max(0, limit - this.#used(tenant, quota, nowMs)));
    }
    return left;
  }

  #used(tenant: string, { period, measure }: Quota, nowMs: number): number {
    return this.#meter.used(tenant, period, measure, nowMs);
  }

  #over(tenant: string, { quotas, over, zone }: Held, nowMs: number): Verdict {
    const usage = this.#meter.windows(tenant, nowMs);
    const usedUp = quotas
      .map(({ name, measure, period, limit }) => ({ name, limit, used: usage[period][measure], untilMs: usage[period].toMs }))
      .filter(({ used, limit }) => used >= limit);
    const last = usedUp.reduce((a, b) => (b.untilMs > a.untilMs ? b : a));
    const until = this.#calendars.of(zone).format(last.untilMs);
    return {
      kind: over,
      reason: `${last.name} (${last.limit}) is used up until ${until}`,
      retryAfterS: Math.max(1, Math.ceil((last.untilMs - nowMs) / 1_000)),
      details: { quota: last.name, limit: last.limit, used: last.used, until },
    };
  }
}

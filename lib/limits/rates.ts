// How much a tenant and its keys may send a second: requests, records, bytes.
//
// Promises: a call is refused while one of its buckets (base/bucket.ts) is empty, before its body is read; refusals say whose
// limit it was, its value, and the time after which a call may begin, to the millisecond. A change of a limit acts on the next call;
// what is in the bucket stays. What others say they let in is debited here too (usage.ts). Memory: buckets that are not full, and
// those of a sweep's time; a tenant without limits has none.

import { TokenBucket } from "../base/bucket.ts";
import { RelogError } from "../base/errors.ts";
import type { Principal } from "../base/principal.ts";
import { POLICY_FIELD, policyMember, REMAINDER_FIELD, remainderMember } from "./fields.ts";
import type { Limits, LimitsLookup, TenantLimitDefaults } from "./values.ts";
import { limitOr } from "./values.ts";

const KINDS = [
  { name: "requests", limit: "ingest_requests_per_second", fallback: "requestsPerS", unit: undefined },
  { name: "records", limit: "ingest_records_per_second", fallback: "recordsPerS", unit: "records" },
  { name: "bytes", limit: "ingest_bytes_per_second", fallback: "bytesPerS", unit: "bytes" },
] as const;
const [REQUESTS, RECORDS, BYTES] = [0, 1, 2] as const;
type Kind = typeof REQUESTS | typeof RECORDS | typeof BYTES;

/** Requests, records, bytes. */
export type Amounts = readonly [requests: number, records: number, bytes: number];

/** A tenant, or one of its keys (empty: the tenant itself). */
export interface Owner {
  readonly tenant: string;
  readonly key: string;
}

/** The buckets of one owner. */
class Meter {
  readonly owner: Owner;
  /** The limits as they were looked up last. */
  source: Limits;
  readonly buckets: (TokenBucket | undefined)[] = [undefined, undefined, undefined];
  /** The members of RateLimit-Policy. */
  policy = "";
  readonly #values: (number | undefined)[] = [];
  #burstS = 0;

  constructor(owner: Owner, limits: Limits, burstS: number, defaults: TenantLimitDefaults, nowMs: number) {
    this.owner = owner;
    this.source = limits;
    this.change(limits, burstS, defaults, nowMs);
  }

  get names(): readonly string[] {
    return this.owner.key === "" ? TENANT_POLICIES : KEY_POLICIES;
  }

  change(limits: Limits, burstS: number, defaults: TenantLimitDefaults, nowMs: number): void {
    this.source = limits;
    this.#burstS = burstS;
    const members: string[] = [];
    for (const [i, { limit, fallback, unit }] of KINDS.entries()) {
      const perS = limitOr(limits[limit], this.owner.key === "" ? defaults[fallback] : 0);
      const bucket = this.buckets[i];
      this.#values[i] = perS;
      if (perS === undefined) this.buckets[i] = undefined;
      else if (bucket === undefined) this.buckets[i] = new TokenBucket(perS, burstS, nowMs);
      else bucket.change(perS, burstS, nowMs);
      const quota = this.buckets[i]?.capacity;
      if (quota !== undefined)
        members.push(policyMember({ name: this.names[i]!, quota, windowS: burstS, ...(unit === undefined ? {} : { unit }) }));
    }
    this.policy = members.join(", ");
  }

  get burstS(): number {
    return this.#burstS;
  }

  charge(kind: number, amount: number, nowMs: number): void {
    this.buckets[kind]?.charge(amount, nowMs);
  }

  /** The first kind, from one on, that keeps a call from beginning; -1 when none does. */
  empty(from: number, nowMs: number): number {
    return this.buckets.findIndex((bucket, kind) => kind >= from && bucket?.admits(nowMs) === false);
  }

  waitMs(nowMs: number): number {
    return Math.max(0, ...this.buckets.map((bucket) => bucket?.waitMs(nowMs) ?? 0));
  }

  isAtRest(nowMs: number): boolean {
    return this.buckets.every((bucket) => bucket === undefined || bucket.fullMs(nowMs) <= 0);
  }

  remainders(nowMs: number): string[] {
    return this.buckets.flatMap((bucket, i) => {
      if (bucket === undefined) return [];
      const left = bucket.left(nowMs);
      return [remainderMember(this.names[i]!, left, (left === 0 ? bucket.waitMs(nowMs) : bucket.fullMs(nowMs)) / 1_000)];
    });
  }

  refusal(kind: number, wait: number): RelogError {
    const { limit } = KINDS[kind]!;
    const { tenant, key } = this.owner;
    const whose = key === "" ? `tenant "${tenant}"` : `key ${key} of tenant "${tenant}"`;
    const text = `${whose} is over ${limit}, ${this.#values[kind]} with ${this.#burstS} s at once; the next call may come in ${wait} ms`;
    const details = { limit, value: this.#values[kind], of: key === "" ? "tenant" : "key", retry_after_ms: wait };
    return new RelogError("rate_limited", text, { retryAfterS: wait / 1_000, details });
  }
}

const TENANT_POLICIES = KINDS.map(({ name }) => name);
const KEY_POLICIES = KINDS.map(({ name }) => `key-${name}`);

/** The limits of one call; see lib/ingest/limits.ts. */
export interface RatedCall {
  enter(): void;
  body(bytes: number): void;
  records(count: number): void;
  fields(): readonly (readonly [name: string, value: string])[];
}

const UNRATED: RatedCall = { enter: () => undefined, body: () => undefined, records: () => undefined, fields: () => [] };

export class Rates {
  readonly #lookup: LimitsLookup;
  readonly #defaults: TenantLimitDefaults;
  readonly #monotonicMs: () => number;
  readonly #meters = new Map<string, Meter>();
  /** What was let in here and was not told to others yet. */
  #used = new Map<Meter, [number, number, number]>();

  /** @param monotonicMs a clock that never goes back */
  constructor(lookup: LimitsLookup, defaults: TenantLimitDefaults, monotonicMs: () => number) {
    this.#lookup = lookup;
    this.#defaults = defaults;
    this.#monotonicMs = monotonicMs;
  }

  /** Owners with buckets in memory. */
  get size(): number {
    return this.#meters.size;
  }

  /** The limits of a call that a key makes. */
  of(caller: Pick<Principal, "tenant" | "keyId">): RatedCall {
    return this.#metersOf(caller, this.#monotonicMs()).length === 0 ? UNRATED : this.#call(caller);
  }

  /** Debits what another process let in. */
  debit(owner: Owner, amounts: Amounts): void {
    const now = this.#monotonicMs();
    const limits = this.#lookup(owner.tenant, owner.key);
    const meter = this.#meter(owner, owner.key === "" ? limits.tenant : limits.key, limits.tenant, now);
    for (const [kind, amount] of amounts.entries()) meter?.charge(kind, amount, now);
  }

  /** What was let in since the last time, of owners that have limits. */
  takeUsed(): (Owner & { readonly amounts: Amounts })[] {
    const used = [...this.#used].map(([{ owner }, amounts]) => ({ ...owner, amounts }));
    this.#used = new Map();
    return used;
  }

  /** Forgets buckets that are full: they are as good as new ones. */
  sweep(): void {
    const now = this.#monotonicMs();
    for (const [id, meter] of this.#meters) if (meter.isAtRest(now)) this.#meters.delete(id);
  }

  /** What limits a caller at the moment: its tenant, then its key, those of them that have limits. */
  #metersOf({ tenant, keyId }: Pick<Principal, "tenant" | "keyId">, nowMs: number): Meter[] {
    const limits = this.#lookup(tenant, keyId);
    const ofTenant = this.#meter({ tenant, key: "" }, limits.tenant, limits.tenant, nowMs);
    const ofKey = this.#meter({ tenant, key: keyId }, limits.key, limits.tenant, nowMs);
    return [ofTenant, ofKey].filter((meter) => meter !== undefined);
  }

  /** Its meters are looked up at every step: a body may take longer than a sweep lets a full bucket be. */
  #call(caller: Pick<Principal, "tenant" | "keyId">): RatedCall {
    const clock = this.#monotonicMs;
    const metersAt = (now: number): Meter[] => this.#metersOf(caller, now);
    /** When it was refused: its fields and its Retry-After are of the same moment. */
    let refusedMs: number | undefined;
    const charge = (kind: Kind, amount: number, now: number): void => {
      for (const meter of metersAt(now)) {
        meter.charge(kind, amount, now);
        const used: [number, number, number] = this.#used.get(meter) ?? [0, 0, 0];
        used[kind] += amount;
        this.#used.set(meter, used);
      }
    };
    const check = (from: number, now: number): void => {
      const meters = metersAt(now);
      for (const meter of meters) {
        const kind = meter.empty(from, now);
        if (kind < 0) continue;
        refusedMs = now;
        throw meter.refusal(kind, Math.max(...meters.map((each) => each.waitMs(now))));
      }
    };
    return {
      enter() {
        const now = clock();
        check(REQUESTS, now);
        charge(REQUESTS, 1, now);
      },
      body(bytes) {
        const now = clock();
        check(RECORDS, now);
        charge(BYTES, bytes, now);
      },
      records: (count) => charge(RECORDS, count, clock()),
      fields() {
        const now = refusedMs ?? clock();
        const meters = metersAt(now);
        return [
          [POLICY_FIELD, meters.map(({ policy }) => policy).join(", ")],
          [REMAINDER_FIELD, meters.flatMap((meter) => meter.remainders(now)).join(", ")],
        ];
      },
    };
  }

  /** The owner's buckets under its limits of now; undefined when it has none. */
  #meter(owner: Owner, limits: Limits, tenant: Limits, nowMs: number): Meter | undefined {
    if (!this.#hasRates(owner, limits)) return undefined;
    const id = owner.key === "" ? owner.tenant : `${owner.tenant}/${owner.key}`;
    const known = this.#meters.get(id);
    const burstS = limits.burst_seconds ?? tenant.burst_seconds ?? this.#defaults.burstMs / 1_000;
    if (known === undefined) {
      const made = new Meter(owner, limits, burstS, this.#defaults, nowMs);
      this.#meters.set(id, made);
      return made;
    }
    if (known.source !== limits || known.burstS !== burstS) known.change(limits, burstS, this.#defaults, nowMs);
    return known;
  }

  #hasRates({ key }: Owner, limits: Limits): boolean {
    const { requestsPerS, recordsPerS, bytesPerS } = this.#defaults;
    if (key === "" && requestsPerS + recordsPerS + bytesPerS > 0) return true;
    return KINDS.some(({ limit }) => (limits[limit] ?? 0) > 0);
  }
}

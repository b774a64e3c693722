// How much each tenant used of its current day and month: a fold of the LOGS streams' envelopes.
//
// Promises: exact for what was folded; the order of the shards, and restarts from snapshots, change nothing; a message of a
// window that has ended does not count into the next; what this process was told is stored counts at once, once. Reading usage
// is a look into a map. Memory: a few hundred bytes for each tenant with usage in its current month, and what is pending.
//
// A window is where it is because of the tenant's zone when it began. When the zone changes, the day and month that are in
// progress become those of the new zone, and go on from what is known.

import type { Metered } from "./metered.ts";
import type { Snapshot } from "./snapshot.ts";
import { SNAPSHOT_VERSION } from "./snapshot.ts";
import type { Part, Tally } from "./tally.ts";
import { add, NOTHING, turn } from "./tally.ts";
import type { Calendars, Window } from "./windows.ts";

export interface Used extends Window {
  readonly records: number;
  readonly bytes: number;
}

export interface Usage {
  readonly day: Used;
  readonly month: Used;
}

type Period = "day" | "month";
const PERIODS = ["day", "month"] as const;

interface Tenant {
  readonly day: Tally;
  readonly month: Tally;
  /** Stored by this process and not folded yet. */
  pendingRecords: number;
  pendingBytes: number;
}

type Parts = Readonly<Record<Period, Part>>;

interface Shard {
  created: string | undefined;
  next: number;
  /** Changes with every fold, so that it is known whether a snapshot would say anything new. */
  changes: number;
  readonly parts: Map<string, Parts>;
  readonly pending: Map<number, { readonly tenant: string; readonly records: number; readonly size: number }>;
}

/** Of one shard. Beyond it the follower has stood still for long, and what this process stores counts when it goes on. */
const PENDING_MAX = 50_000;

export class Meter {
  readonly #calendars: Calendars;
  readonly #zoneOf: (tenant: string) => string;
  readonly #now: () => number;
  readonly #tenants = new Map<string, Tenant>();
  readonly #shards: readonly Shard[];
  /** Whether every shard was read to its end once. */
  ready = false;
  /** Sequences that were passed over because nothing is there, and messages that are no batches. */
  passedOver = 0;

  /** @param zoneOf the time zone of a tenant @param now milliseconds since the epoch */
  constructor(shards: number, calendars: Calendars, zoneOf: (tenant: string) => string, now: () => number) {
    this.#calendars = calendars;
    this.#zoneOf = zoneOf;
    this.#now = now;
    this.#shards = Array.from({ length: shards }, () => ({
      created: undefined,
      next: 1,
      changes: 0,
      parts: new Map(),
      pending: new Map(),
    }));
  }

  /** Tenants that are kept. */
  get size(): number {
    return this.#tenants.size;
  }

  /** Where a shard's fold is; `created` is undefined before anything of it is known. */
  position(shard: number): { readonly created: string | undefined; readonly next: number; readonly changes: number } {
    return this.#shards[shard]!;
  }

  /** The fold goes on at `next` of the stream that was created then. What was counted of an earlier one stays. */
  begin(shard: number, created: string, next: number): void {
    const state = this.#shards[shard]!;
    // What is pending of an earlier stream, or before the position, will not be folded any more.
    for (const seq of state.pending.keys()) if (state.created !== created || seq < next) this.#forget(state, seq);
    state.created = created;
    state.next = next;
    state.changes++;
  }

  /** Counts the message at a sequence. @param metered undefined when it is no batch */
  fold(shard: number, seq: number, metered: Metered | undefined): void {
    const state = this.#shards[shard]!;
    if (seq < state.next) return;
    state.next = seq + 1;
    state.changes++;
    if (state.pending.size > 0) this.#forget(state, seq);
    if (metered === undefined) this.passedOver++;
    else this.#count(state, metered);
  }

  /** Nothing is there from the next sequence to this one. */
  pass(shard: number, to: number): void {
    const state = this.#shards[shard]!;
    if (to < state.next) return;
    this.passedOver += to - state.next + 1;
    state.next = to + 1;
    state.changes++;
    for (const seq of state.pending.keys()) if (seq <= to) this.#forget(state, seq);
  }

  /** A message that this process was told is stored: it counts from now on. */
  stored({ tenant, shard, seq, records, size }: Omit<Metered, "observedMs"> & { readonly shard: number; readonly seq: number }): void {
    const state = this.#shards[shard];
    // The fold was faster.
    if (state === undefined || seq < state.next || state.pending.size >= PENDING_MAX || state.pending.has(seq)) return;
    state.pending.set(seq, { tenant, records, size });
    const one = this.#open(tenant, this.#now());
    one.pendingRecords += records;
    one.pendingBytes += size;
  }

  /** Used of a period that is current now, what is pending included. */
  used(tenant: string, period: Period, measure: "records" | "bytes", nowMs: number): number {
    const one = this.#tenants.get(tenant);
    if (one === undefined) return 0;
    const tally = one[period];
    const pending = measure === "records" ? one.pendingRecords : one.pendingBytes;
    return (nowMs < tally.toMs ? tally[measure] : 0) + pending;
  }

  /** The current day and month of a tenant. */
  windows(tenant: string, nowMs = this.#now()): Usage {
    const one = this.#tenants.get(tenant);
    const now = this.#calendars.of(this.#zoneOf(tenant)).at(nowMs);
    const usage = (period: Period): Used => {
      const tally = one?.[period];
      const { fromMs, toMs } = tally !== undefined && nowMs < tally.toMs ? tally : now[period];
      return { fromMs, toMs, records: this.used(tenant, period, "records", nowMs), bytes: this.used(tenant, period, "bytes", nowMs) };
    };
    return { day: usage("day"), month: usage("month") };
  }

  /** The zone of a tenant may have changed: what is in progress goes on in the day and month that are current now. */
  rezone(tenant: string, nowMs = this.#now()): void {
    const one = this.#tenants.get(tenant);
    if (one === undefined) return;
    for (const period of PERIODS) {
      const tally = one[period];
      const now = this.#carried(tenant, period, tally, nowMs);
      if (now === tally) continue;
      for (const state of this.#shards) {
        const part = state.parts.get(tenant)?.[period];
        if (part?.fromMs === tally.fromMs) part.fromMs = now.fromMs;
        if (part !== undefined) state.changes++;
      }
      tally.fromMs = now.fromMs;
      tally.toMs = now.toMs;
    }
  }

  /** Forgets whoever used nothing in its current month, so that memory and snapshots follow the tenants that there are. */
  prune(nowMs = this.#now()): void {
    for (const [tenant, { month, pendingRecords }] of this.#tenants) {
      if (month.toMs > nowMs || pendingRecords > 0) continue;
      this.#tenants.delete(tenant);
      for (const { parts } of this.#shards) parts.delete(tenant);
    }
  }

  /** A shard's totals as they are now; undefined before it was begun. */
  snapshot(shard: number, nowMs = this.#now()): Snapshot | undefined {
    const { created, next, parts } = this.#shards[shard]!;
    if (created === undefined) return undefined;
    const [indexes, windows] = [new Map<string, number>(), [] as (readonly [number, number, number, number])[]];
    const tenants: Record<string, readonly [number, number, number, number, number]> = Object.create(null);
    for (const [tenant, { day, month }] of parts) {
      const one = this.#tenants.get(tenant)!;
      if (one.month.toMs <= nowMs || month.fromMs !== one.month.fromMs) continue;
      const bounds = [one.day.fromMs, one.day.toMs, one.month.fromMs, one.month.toMs] as const;
      const key = bounds.join();
      let index = indexes.get(key);
      if (index === undefined) {
        index = windows.push(bounds) - 1;
        indexes.set(key, index);
      }
      const today = day.fromMs === one.day.fromMs ? day : NOTHING;
      tenants[tenant] = [index, today.records, today.bytes, month.records, month.bytes];
    }
    return { version: SNAPSHOT_VERSION, stream: created, next, windows, tenants };
  }

  /** Begins a shard with what a snapshot says, before anything of it was folded. */
  restore(shard: number, { stream, next, windows, tenants }: Snapshot, nowMs = this.#now()): void {
    const state = this.#shards[shard]!;
    state.created = stream;
    state.next = next;
    for (const [tenant, [index, ...sums]] of Object.entries(tenants)) {
      const [dayFrom, dayTo, monthFrom, monthTo] = windows[index]!;
      if (monthTo <= nowMs) continue;
      // The zone may have changed since.
      const day = this.#carried(tenant, "day", { fromMs: dayFrom, toMs: dayTo }, nowMs);
      const month = this.#carried(tenant, "month", { fromMs: monthFrom, toMs: monthTo }, nowMs);
      const one = this.#tenants.get(tenant) ?? this.#opened(tenant, day, month);
      if (day.fromMs > one.day.fromMs) turn(one.day, day);
      if (month.fromMs > one.month.fromMs) turn(one.month, month);
      const parts = partsOf(state, tenant);
      add(one.day, parts.day, day.fromMs, sums[0], sums[1]);
      add(one.month, parts.month, month.fromMs, sums[2], sums[3]);
    }
  }

  #count(state: Shard, { tenant, records, size, observedMs }: Metered): void {
    const one = this.#open(tenant, observedMs);
    if (observedMs >= one.day.toMs) {
      const now = this.#calendars.of(this.#zoneOf(tenant)).at(observedMs);
      turn(one.day, now.day);
      if (observedMs >= one.month.toMs) turn(one.month, now.month);
    }
    const parts = partsOf(state, tenant);
    if (observedMs >= one.day.fromMs) add(one.day, parts.day, one.day.fromMs, records, size);
    if (observedMs >= one.month.fromMs) add(one.month, parts.month, one.month.fromMs, records, size);
  }

  #open(tenant: string, atMs: number): Tenant {
    const known = this.#tenants.get(tenant);
    if (known !== undefined) return known;
    const { day, month } = this.#calendars.of(this.#zoneOf(tenant)).at(atMs);
    return this.#opened(tenant, day, month);
  }

  #opened(tenant: string, day: Window, month: Window): Tenant {
    const one = { day: { ...day, records: 0, bytes: 0 }, month: { ...month, records: 0, bytes: 0 }, pendingRecords: 0, pendingBytes: 0 };
    this.#tenants.set(tenant, one);
    return one;
  }

  /** A window that is in progress, as the tenant's zone has it; any other as it is. */
  #carried(tenant: string, period: Period, window: Window, nowMs: number): Window {
    if (nowMs < window.fromMs || nowMs >= window.toMs) return window;
    const now = this.#calendars.of(this.#zoneOf(tenant)).at(nowMs)[period];
    return now.fromMs === window.fromMs && now.toMs === window.toMs ? window : now;
  }

  #forget({ pending }: Shard, seq: number): void {
    const known = pending.get(seq);
    if (known === undefined) return;
    pending.delete(seq);
    const one = this.#tenants.get(known.tenant)!;
    one.pendingRecords -= known.records;
    one.pendingBytes -= known.size;
  }
}

function partsOf({ parts }: Shard, tenant: string): Parts {
  let known = parts.get(tenant);
  if (known === undefined) {
    known = { day: { ...NOTHING }, month: { ...NOTHING } };
    parts.set(tenant, known);
  }
  return known;
}

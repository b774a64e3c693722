// The removal of a deleted tenant from one site, as it is remembered: what was counted survives whoever counted it.

import type { Leased } from "../streams/lease.ts";

/** What a table held of the tenant. Times are RFC 3339. */
export interface Found {
  readonly table: string;
  readonly rows: number;
}

/** `waiting` for projections to know, `counting`, `removing`, `checking` that nothing is left, `certifying` that. */
export type Phase = "waiting" | "counting" | "removing" | "checking" | "certifying";

export interface Erasure extends Leased {
  readonly tenant: string;
  /** When the tenant was deleted, RFC 3339, and the sequence of CONTROL that says so. */
  readonly deleted: string;
  readonly tombstone: number;
  readonly phase: Phase;
  /** Tables of this round, and what each held when it began. */
  readonly counted: readonly Found[];
  /** What earlier rounds have removed. */
  readonly removed: readonly Found[];
  readonly first: string | null;
  readonly last: string | null;
  readonly deadLetters: number;
  readonly deferred: number;
  readonly registers: readonly string[];
  /** Why it stopped, or what it waits for; null while it goes on. */
  readonly error: string | null;
}

/** The key of its register. */
export function erasureKey(site: string, tenant: string): string {
  return `erasure.${site}.${tenant}`;
}

/** A removal that was not begun yet. */
export function begun(tenant: string, deleted: string, tombstone: number): Erasure {
  const nothing = { counted: [], removed: [], first: null, last: null, deadLetters: 0, deferred: 0, registers: [] };
  return { tenant, deleted, tombstone, phase: "waiting", ...nothing, error: null, owner: "", writes: 0 };
}

/** Sums of rows by table, in order of their names. */
export function added(a: readonly Found[], b: readonly Found[]): Found[] {
  const sums = new Map<string, number>();
  for (const { table, rows } of [...a, ...b]) sums.set(table, (sums.get(table) ?? 0) + rows);
  return [...sums].map(([table, rows]) => ({ table, rows })).sort((one, other) => (one.table < other.table ? -1 : 1));
}

/** The earlier, or the later, of two times that may be absent. */
export function earlier(a: string | null, b: string | null): string | null {
  return a === null || (b !== null && b < a) ? b : a;
}
export function later(a: string | null, b: string | null): string | null {
  return a === null || (b !== null && b > a) ? b : a;
}

// Sums of a day or a month, and the shards' parts of them.

import type { Window } from "./windows.ts";

/** A window of a tenant, with its sum over the shards. */
export interface Tally {
  fromMs: number;
  toMs: number;
  records: number;
  bytes: number;
}

/** One shard's part of a tally; of another window than the tally's it is nothing. */
export interface Part {
  fromMs: number;
  records: number;
  bytes: number;
}

export const NOTHING: Part = { fromMs: 0, records: 0, bytes: 0 };

/** Begins a window with nothing, or goes on with one that began at the same moment. */
export function turn(tally: Tally, { fromMs, toMs }: Window): void {
  Object.assign(tally, fromMs === tally.fromMs ? { toMs } : { fromMs, toMs, records: 0, bytes: 0 });
}

/** Adds to a tally and to a shard's part of it, if they are of that window. */
export function add(tally: Tally, part: Part, fromMs: number, records: number, bytes: number): void {
  if (fromMs !== tally.fromMs) return;
  if (part.fromMs !== fromMs) Object.assign(part, { fromMs, records: 0, bytes: 0 });
  tally.records += records;
  tally.bytes += bytes;
  part.records += records;
  part.bytes += bytes;
}

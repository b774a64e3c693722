// Sums by tenant, day and beginning of the batch id, and what of two such maps differs.

import { DAY_MS, DAY_NS } from "../base/clock.ts";
import { timeOfBatchId } from "../event/ids.ts";
import { addDigest } from "./digest.ts";
import type { Expired, GroupSum } from "./ports.ts";

export interface Key {
  readonly tenant: string;
  readonly day: number;
  readonly prefix: string;
}

/** Groups by the text of their key. */
export type Groups = Map<string, GroupSum>;

/** Characters of a batch id by which groups are made, from coarse to fine: 9.3 hours, 33 seconds, one second, the batch. */
export const LEVELS = [5, 7, 8, 26] as const;

const ID_CHARS_OF_TIME = 10;

/** The text of a key. Neither tenants nor ids hold tabs; a damaged row's may, and then it is merely another text. */
export function textOf({ tenant, day, prefix }: Key): string {
  return `${prefix}\t${day}\t${tenant}`;
}

/** What textOf wrote. */
export function keyOf(text: string): Key {
  const [prefix = "", day, ...tenant] = text.split("\t");
  return { tenant: tenant.join("\t"), day: Number(day), prefix };
}

/** Adds to a group. */
export function addTo(groups: Groups, key: Key, records: number, sum: bigint): void {
  const text = textOf(key);
  const known = groups.get(text);
  groups.set(text, known === undefined ? { records, sum } : { records: known.records + records, sum: addDigest(known.sum, sum) });
}

/** Days since the epoch of a time in nanoseconds. */
export function dayOf(timestampNs: bigint): number {
  return Number(timestampNs / DAY_NS);
}

/** YYYY-MM-DD of a day since the epoch. */
export function dayText(day: number): string {
  return new Date(day * DAY_MS).toISOString().slice(0, 10);
}

/** Batches made in this time, milliseconds since the epoch, may be gone from the log. */
export interface Window {
  readonly fromMs: number;
  readonly toMs: number;
}

/** Whether batches that begin so may be gone from the log. */
export function mayBeGone(prefix: string, windows: readonly Window[]): boolean {
  if (windows.length === 0) return false;
  const time = prefix.slice(0, ID_CHARS_OF_TIME);
  const fromMs = timeOfBatchId(time.padEnd(ID_CHARS_OF_TIME, "0"));
  const toMs = timeOfBatchId(time.padEnd(ID_CHARS_OF_TIME, "Z"));
  return windows.some((window) => fromMs <= window.toMs && toMs >= window.fromMs);
}

export interface Rules {
  readonly windows: readonly Window[];
  readonly expired: Expired | undefined;
}

export interface Differences {
  /** Groups that differ, or that only a finer look can tell from ones that do. */
  readonly keys: string[];
  /** Groups that the log knows nothing of and need not. */
  readonly more: string[];
}

/** What differs between the log (or another table) and a table. */
export function differencesOf(log: Groups, table: Groups, rules: Rules): Differences {
  const keys: string[] = [];
  const more: string[] = [];
  for (const text of new Set([...log.keys(), ...table.keys()])) {
    const [a, b] = [log.get(text), table.get(text)];
    if (a?.records === b?.records && a?.sum === b?.sum) continue;
    const { tenant, day, prefix } = keyOf(text);
    if ((a?.records ?? 0) === 0 && (b?.records ?? 0) === 0) continue;
    if (rules.expired?.(tenant, BigInt(day) * DAY_NS)) continue;
    if (a === undefined && mayBeGone(prefix, rules.windows)) more.push(text);
    else keys.push(text);
  }
  return { keys: keys.sort(), more };
}

/** Beginnings of the batch ids of some groups, each once, in order. */
export function prefixesOf(keys: readonly string[]): string[] {
  return [...new Set(keys.map((text) => keyOf(text).prefix))].sort();
}

/** Reads a table's groups into a map. */
export async function collect(groups: AsyncIterable<GroupSum & Key>): Promise<Groups> {
  const found: Groups = new Map();
  for await (const group of groups) addTo(found, group, group.records, group.sum);
  return found;
}

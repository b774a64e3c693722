// A dead letter for people: where it came from, why, and what it holds.
//
// Promises: the answer is bounded whatever the payload; bytes that are no batch are shown as a dump, never raw; texts stay
// data: whoever writes them to a terminal makes them printable.

import { messageOf } from "../base/errors.ts";
import { decodeBatch } from "../event/decode.ts";
import type { DeadLetter, DeadLetterHead } from "../streams/dead-letters.ts";
import type { DeadPorts } from "./ports.ts";

/** Smaller than what a projection takes: a letter is only looked at. */
const BLOCK_BYTES_MAX = 16 * 2 ** 20;
export const RECORDS_SHOWN_MAX = 100;
const TEXT_CHARS_MAX = 1_024;
const FIELDS_MAX = 200;
const DUMP_BYTES = 256;
const DUMP_LINE_BYTES = 16;

export interface ShownLetter extends Record<string, unknown> {
  readonly headers: readonly (readonly [string, string])[];
  /** The first records, when the payload can be opened. */
  readonly records?: readonly unknown[];
  readonly records_total?: number;
  /** Why there are no records, and the first bytes instead: offset, hexadecimal and ASCII. */
  readonly unreadable?: string;
  readonly dump?: readonly string[];
}

const time = (ms: number | undefined): string | null => (ms === undefined ? null : new Date(ms).toISOString());

/** A letter of a list, under the names that JSON answers have. */
export function shownHead(head: DeadLetterHead): Record<string, unknown> {
  return {
    seq: head.seq,
    stored_at: time(head.storedMs),
    tenant: head.tenant,
    reason: head.reason,
    detail: head.detail,
    site: head.site,
    generation: head.generation,
    stream: head.stream,
    origin_seq: head.originSeq,
    origin_stored_at: time(head.originStoredMs),
    batch: head.batch,
    lines: head.lines,
    bytes: head.bytes,
    omitted_bytes: head.omittedBytes ?? null,
  };
}

/** A letter whole. @param records how many of its records at most */
export async function showLetter(ports: Pick<DeadPorts, "origin">, letter: DeadLetter, records: number): Promise<ShownLetter> {
  const shown = { ...shownHead(letter), headers: letter.pairs().map(([name, value]) => [name, cut(value)] as const) };
  let { payload } = letter;
  if (letter.omittedBytes !== undefined) {
    const origin = await ports.origin(letter);
    if (origin === undefined)
      return { ...shown, unreadable: `the payload was too large to be parked, and ${letter.stream} has let it go`, dump: [] };
    payload = origin.payload;
  }
  try {
    const all = await decodeBatch(payload, BLOCK_BYTES_MAX);
    return { ...shown, records: all.slice(0, Math.min(records, RECORDS_SHOWN_MAX)).map(bounded), records_total: all.length };
  } catch (error) {
    return { ...shown, unreadable: `the payload is no block of records: ${messageOf(error)}`, dump: dump(payload) };
  }
}

function cut(text: string): string {
  return text.length <= TEXT_CHARS_MAX ? text : `${text.slice(0, TEXT_CHARS_MAX)}… (${text.length} characters)`;
}

/** A value with its texts and its fields cut. */
function bounded(value: unknown): unknown {
  if (typeof value === "string") return cut(value);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, FIELDS_MAX)
      .map(([name, one]) => [cut(name), bounded(one)]),
  );
}

/** The first bytes as lines of offset, hexadecimal and printable ASCII. */
function dump(payload: Uint8Array): string[] {
  const head = Buffer.from(payload.subarray(0, DUMP_BYTES));
  const lines: string[] = [];
  for (let at = 0; at < head.length; at += DUMP_LINE_BYTES) {
    const row = head.subarray(at, at + DUMP_LINE_BYTES);
    const hex = [...row].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const ascii = row.toString("latin1").replace(/[^\x20-\x7e]/g, ".");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(DUMP_LINE_BYTES * 3 - 1)}  ${ascii}`);
  }
  return lines;
}

// The log's side of the comparison: what a table must hold, summed up from the messages' headers.
//
// Promises: a message is opened only when its records lie on several days; each message is read once per pass; memory grows
// with tenants, days and the groups asked for, not with the log, except where single batches are asked for.

import type { Envelope } from "../event/envelope.ts";
import { HEADERS, readEnvelope } from "../event/envelope.ts";
import { isBatchId } from "../event/ids.ts";
import { digestOfLines, digestOfRange, subtractDigest } from "./digest.ts";
import type { Groups, Window } from "./groups.ts";
import { addTo, dayOf } from "./groups.ts";
import type { Letters, ParkedLines } from "./letters.ts";
import { BLOCK_BYTES_MAX } from "./letters.ts";
import { openLines } from "./open.ts";
import type { Gone, LoggedMessage, LogSource, Span, VerifyPorts } from "./ports.ts";

export interface ShardSpan extends Span {
  readonly shard: number;
}

/** A message of the log that a table must hold, all or a part of it. */
export interface Entry {
  readonly place: ShardSpan;
  readonly seq: number;
  readonly envelope: Envelope;
  readonly parked: ParkedLines | undefined;
}

/** What becomes of the messages, for whoever counts them. Groups are made for `entry` only. */
export interface TallyEvents {
  message?(place: ShardSpan): void;
  later?(place: ShardSpan): void;
  unwanted?(place: ShardSpan): void;
  entry?(entry: Entry): void;
  /** Neither parked nor such that it can be projected. */
  unreadable?(place: ShardSpan, seq: number, tenant: string, batch: string, why: string): void;
  parkedUnjudged?(place: ShardSpan): void;
  gone?(place: ShardSpan, gone: Gone): void;
}

export interface TallyScope {
  readonly cut: string;
  readonly chars: number;
  readonly wanted: ((envelope: Envelope) => boolean) | undefined;
  readonly deleted: VerifyPorts["deleted"];
  /** Only batches that begin so, and where to look for them. */
  readonly within: { readonly prefixes: ReadonlySet<string>; readonly chars: number; readonly ranges: Ranges } | undefined;
}

export interface Tally {
  readonly groups: Groups;
  readonly windows: readonly Window[];
  readonly ranges: Ranges;
}

/** A message cannot hold more: 40 bytes a record, 64 MiB a block. */
const RECORDS_MAX = Math.floor(BLOCK_BYTES_MAX / 40);
const LINES_MAX = 2 ** 32;
/** A repeated call may finish an earlier one, under the earlier id: within the streams' de-duplication window and an append. */
const REPEATED_MS = 15 * 60_000;
/** How far the clocks of gateways and servers may differ. */
const SKEW_MS = 60_000;

/** Where the batches of a prefix lie: by prefix and span, the first and the last sequence. */
export class Ranges {
  readonly #ranges = new Map<string, Map<ShardSpan, { from: number; to: number }>>();

  note(prefix: string, place: ShardSpan, seq: number): void {
    const places = this.#ranges.get(prefix) ?? new Map<ShardSpan, { from: number; to: number }>();
    this.#ranges.set(prefix, places);
    const range = places.get(place);
    if (range === undefined) places.set(place, { from: seq, to: seq });
    else range.to = seq;
  }

  /** The range of a span in which batches of some prefixes lie; undefined when there are none. */
  of(prefixes: Iterable<string>, place: ShardSpan): { from: number; to: number } | undefined {
    let range: { from: number; to: number } | undefined;
    for (const prefix of prefixes) {
      const one = this.#ranges.get(prefix)?.get(place);
      if (one === undefined) continue;
      range = range === undefined ? one : { from: Math.min(range.from, one.from), to: Math.max(range.to, one.to) };
    }
    return range;
  }
}

/** Reads the log and sums it up. @throws what the log throws, the signal's reason */
export async function tally(
  log: LogSource,
  letters: Letters,
  places: readonly ShardSpan[],
  scope: TallyScope,
  signal: AbortSignal,
  events: TallyEvents = {},
): Promise<Tally> {
  const groups: Groups = new Map();
  const windows: Window[] = [];
  const ranges = new Ranges();
  for (const place of places) {
    const range = scope.within === undefined ? place : scope.within.ranges.of(scope.within.prefixes, place);
    if (range === undefined) continue;
    const holes = new Holes(windows);
    for await (const item of log.walk(place.shard, place.created, range.from, range.to, signal)) {
      holes.pass(item);
      if (item.kind === "gone") {
        events.gone?.(place, item);
        continue;
      }
      events.message?.(place);
      const entry = entryOf(item, place, letters, scope, events);
      if (entry === undefined) continue;
      events.entry?.(entry);
      const { batch } = entry.envelope;
      ranges.note(batch.slice(0, scope.chars), place, item.seq);
      if ((await addEntry(log, groups, entry, scope.chars, events)) === "gone") holes.vanished(item);
    }
    holes.end();
  }
  return { groups, windows, ranges };
}

/** A message that the table must hold a part of; undefined when it is not asked for, or told to `events`. */
function entryOf(message: LoggedMessage, place: ShardSpan, letters: Letters, scope: TallyScope, events: TallyEvents): Entry | undefined {
  const { seq } = message;
  if (scope.deleted?.(message.subject.split(".")[2] ?? "")) {
    events.unwanted?.(place);
    return undefined;
  }
  const batch = message.header(HEADERS.batch);
  const parked = letters.of(place.shard, seq, batch);
  const envelope = readEnvelope((name) => message.header(name));
  const fault = faultOf(envelope, message.subject);
  if ("fault" in envelope || fault !== undefined) {
    if (parked === "all") events.parkedUnjudged?.(place);
    else events.unreadable?.(place, seq, message.header(HEADERS.tenant), batch, fault ?? "");
    return undefined;
  }
  if (batch >= scope.cut) {
    events.later?.(place);
    return undefined;
  }
  if (scope.within !== undefined && !scope.within.prefixes.has(batch.slice(0, scope.within.chars))) return undefined;
  if (scope.wanted !== undefined && !scope.wanted(envelope)) {
    events.unwanted?.(place);
    return undefined;
  }
  return { place, seq, envelope, parked };
}

function faultOf(envelope: Envelope | { readonly fault: string }, subject: string): string | undefined {
  if ("fault" in envelope) return envelope.fault;
  const { tenant, batch, records, firstLine, minTimestamp, maxTimestamp } = envelope;
  if (subject.split(".")[2] !== tenant) return `the subject ${subject} is not of tenant ${tenant}`;
  if (!isBatchId(batch)) return "the batch id is no ULID";
  if (records === 0 || records > RECORDS_MAX || firstLine + records > LINES_MAX) return `${records} records from line ${firstLine} on`;
  if (minTimestamp > maxTimestamp) return "its times are no range";
  return undefined;
}

async function addEntry(log: LogSource, groups: Groups, entry: Entry, chars: number, events: TallyEvents): Promise<"gone" | undefined> {
  const { envelope, parked } = entry;
  if (parked === "all") return undefined;
  const { tenant, batch, firstLine, records } = envelope;
  const prefix = batch.slice(0, chars);
  const day = dayOf(envelope.minTimestamp);
  if (day === dayOf(envelope.maxTimestamp)) {
    const whole = digestOfRange(batch, firstLine, records);
    const lines = [...(parked ?? [])].filter((line) => line >= firstLine && line < firstLine + records);
    const sum = lines.length === 0 ? whole : subtractDigest(whole, digestOfLines(batch, lines));
    addTo(groups, { tenant, day, prefix }, records - lines.length, sum);
    return undefined;
  }
  const opened = await openLines(log, entry);
  if ("gone" in opened) return "gone";
  if ("fault" in opened) {
    events.unreadable?.(entry.place, entry.seq, tenant, batch, `the block cannot be opened: ${opened.fault}`);
    return undefined;
  }
  for (const [at, all] of opened.lines) {
    const lines = parked === undefined ? all : all.filter((line) => !parked.has(line));
    addTo(groups, { tenant, day: at, prefix }, lines.length, digestOfLines(batch, lines));
  }
  return undefined;
}

/** Turns holes of one span into the times at which their batches may have been made. */
class Holes {
  readonly #windows: Window[];
  #beforeMs = Number.NEGATIVE_INFINITY;
  #open = false;

  constructor(windows: Window[]) {
    this.#windows = windows;
  }

  pass(item: LoggedMessage | Gone): void {
    if (item.kind === "gone") {
      this.#open = true;
      return;
    }
    if (this.#open) this.#windows.push({ fromMs: this.#beforeMs - REPEATED_MS, toMs: item.storedMs + SKEW_MS });
    this.#open = false;
    this.#beforeMs = item.storedMs;
  }

  /** A message that was there a moment ago. */
  vanished(message: LoggedMessage): void {
    this.#windows.push({ fromMs: message.storedMs - REPEATED_MS, toMs: message.storedMs + SKEW_MS });
  }

  end(): void {
    if (this.#open) this.#windows.push({ fromMs: this.#beforeMs - REPEATED_MS, toMs: Number.POSITIVE_INFINITY });
  }
}

// From a stream to the next plan's messages.
//
// Promises: a plan grows with the backlog and never beyond its bounds in records, bytes and partitions; when the stream
// is quiet it waits a little for company, so that trickles do not become a part a line; memory is bounded by two plans
// (one is read while the other is inserted) and one read.

import type { Clock } from "../base/clock.ts";
import { DAY_NS } from "../base/clock.ts";
import type { Values } from "../base/config.ts";
import { bytes, duration, integer } from "../base/config.ts";
import { sleep } from "../base/loop.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { frameContentSize } from "../event/frame.ts";
import type { Judge, Verdict } from "./message.ts";

export const gatherSettings = {
  planRecordsMax: integer(
    "RELOG_PLAN_RECORDS_MAX",
    "200000",
    [1, 10_000_000],
    "records",
    "one insert; larger ones are cheaper for ClickHouse and cost it memory",
  ),
  planRecordsEnough: integer(
    "RELOG_PLAN_RECORDS_ENOUGH",
    "100000",
    [1, 10_000_000],
    "records",
    "an insert of this size does not wait for company",
  ),
  planBytesMax: bytes("RELOG_PLAN_BYTES_MAX", "16MiB", "compressed bytes of one insert, and so half of the projector's memory per shard"),
  planBlockBytesMax: bytes(
    "RELOG_PLAN_BLOCK_BYTES_MAX",
    "128MiB",
    "bytes of one insert once decompressed; ClickHouse needs about eight times as much memory",
  ),
  planPartitionsMax: integer(
    "RELOG_PLAN_PARTITIONS_MAX",
    "4",
    [1, 1000],
    "days",
    "days that one insert may touch, if its first message alone does not touch more",
  ),
  lingerMs: duration(
    "RELOG_PLAN_LINGER",
    "600ms",
    "how long an insert waits for company; in a trickle half as long, so that a line is searchable within a second, in a flood 2.5 times",
  ),
  pollMs: duration("RELOG_PLAN_POLL", "100ms", "how often an idle projector looks at a stream"),
};

/** The signature of lib/streams/read.ts, for one stream. */
export type ReadStream = (
  from: number,
  bounds: { readonly messagesMax: number; readonly bytesMax: number },
) => Promise<{
  readonly messages: StoredMessage[];
  readonly pending: number;
  readonly missing: { readonly from: number; readonly to: number } | undefined;
}>;

export interface Gathered {
  readonly verdicts: Verdict[];
  /** Sequences before the first verdict that the stream does not hold any more. */
  readonly missing: { readonly from: number; readonly to: number } | undefined;
}

/** Fewer records than this within half the linger are a trickle: waiting longer would not make the insert cheaper. */
const TRICKLE_RECORDS = 1_000;
/** More than this within the linger are a flood: then throughput counts, and larger inserts save merges (docs/BENCHMARKS.md). */
const FLOOD_RECORDS = 20_000;

/** How many lingers an insert of this size waits for company. */
function patience(records: number): number {
  return records < TRICKLE_RECORDS ? 0.5 : records < FLOOD_RECORDS ? 1 : 2.5;
}

/** Messages of one plan: settling asks for each batch by its id. */
const PLAN_MESSAGES_MAX = 20_000;
const READ_MESSAGES_MAX = 512;
const READ_BYTES_MAX = 4 * 2 ** 20;

/** Collects messages from `from` on, holding what did not fit for the next call. */
export class Gatherer {
  readonly #read: ReadStream;
  readonly #settings: Values<typeof gatherSettings>;
  readonly #clock: Clock;
  readonly #judge: Judge;
  #held: Verdict[] = [];

  constructor(read: ReadStream, judge: Judge, settings: Values<typeof gatherSettings>, clock: Clock) {
    this.#read = read;
    this.#judge = judge;
    this.#settings = settings;
    this.#clock = clock;
  }

  /** The next plan's messages; undefined when the signal aborts or nothing came within `idleMs`. @throws the reader's errors */
  async next(from: number, idleMs: number, signal: AbortSignal): Promise<Gathered | undefined> {
    const taken = new Selection(this.#settings);
    const begin = this.#clock.monotonicMs();
    let since: number | undefined;
    if (this.#held[0]?.seq !== from) this.#held = [];
    for (;;) {
      while (this.#held.length > 0 && taken.take(this.#held[0]!)) this.#held.shift();
      if (this.#held.length > 0 || taken.records >= this.#settings.planRecordsEnough)
        return { verdicts: taken.verdicts, missing: undefined };
      if (taken.verdicts.length > 0) since ??= this.#clock.monotonicMs();
      const at = from + taken.verdicts.length;
      const { messages, pending, missing } = await this.#read(at, { messagesMax: READ_MESSAGES_MAX, bytesMax: READ_BYTES_MAX });
      const now = this.#clock.monotonicMs();
      if (missing !== undefined) return { verdicts: taken.verdicts, missing: taken.verdicts.length === 0 ? missing : undefined };
      this.#held.push(...messages.map(this.#judge));
      if (messages.length > 0) {
        since ??= now;
        if (pending > 0) continue;
      }
      while (this.#held.length > 0 && taken.take(this.#held[0]!)) this.#held.shift();
      if (this.#held.length > 0) return { verdicts: taken.verdicts, missing: undefined };
      if (signal.aborted) return undefined;
      if (since === undefined) {
        if (now - begin >= idleMs) return undefined;
        await sleep(this.#settings.pollMs, signal);
      } else {
        const linger = this.#settings.lingerMs * patience(taken.records);
        const left = linger - (now - since);
        if (left <= 0 || taken.records >= this.#settings.planRecordsEnough) return { verdicts: taken.verdicts, missing: undefined };
        await sleep(left, signal);
      }
    }
  }
}

/** Messages of one plan, within its bounds. The first message always fits. */
class Selection {
  readonly verdicts: Verdict[] = [];
  records = 0;
  #bytes = 0;
  #blockBytes = 0;
  readonly #days = new Set<bigint>();
  readonly #settings: Values<typeof gatherSettings>;

  constructor(settings: Values<typeof gatherSettings>) {
    this.#settings = settings;
  }

  take(verdict: Verdict): boolean {
    const records = verdict.kind === "batch" ? verdict.envelope.records : 0;
    const size = verdict.message.payload.length;
    const blockBytes = verdict.kind === "batch" ? (frameContentSize(verdict.message.payload) ?? 0) : 0;
    const days = daysOf(verdict, this.#settings.planPartitionsMax + 1);
    if (this.verdicts.length > 0) {
      if (this.verdicts.length >= PLAN_MESSAGES_MAX) return false;
      if (this.records + records > this.#settings.planRecordsMax || this.#bytes + size > this.#settings.planBytesMax) return false;
      if (this.#blockBytes + blockBytes > this.#settings.planBlockBytesMax) return false;
      const added = days.filter((day) => !this.#days.has(day)).length;
      if (added > 0 && this.#days.size + added > this.#settings.planPartitionsMax) return false;
    }
    for (const day of days) this.#days.add(day);
    this.verdicts.push(verdict);
    this.records += records;
    this.#bytes += size;
    this.#blockBytes += blockBytes;
    return true;
  }
}

/** The days a batch may touch, at most `max` of them. */
function daysOf(verdict: Verdict, max: number): bigint[] {
  if (verdict.kind !== "batch") return [];
  const days: bigint[] = [];
  const last = verdict.envelope.maxTimestamp / DAY_NS;
  for (let day = verdict.envelope.minTimestamp / DAY_NS; day <= last && days.length < max; day++) days.push(day);
  return days;
}

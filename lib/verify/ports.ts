// What verification needs of the world, and what it says in the end.
//
// Promises: plain types only; a Verification and a Comparison are data that JSON can carry.

import type { Envelope } from "../event/envelope.ts";

/** Sequences that nobody holds any more, and how that is known; "" when nothing says why. */
export interface Gone {
  readonly kind: "gone";
  readonly from: number;
  readonly to: number;
  readonly evidence: string;
}

export interface LoggedMessage {
  readonly kind: "message";
  readonly seq: number;
  readonly subject: string;
  readonly storedMs: number;
  header(name: string): string;
}

/** Sequences of one incarnation of a shard's stream, which its creation time names. */
export interface Span {
  readonly created: string;
  readonly from: number;
  readonly to: number;
}

/** The log: the streams, and the archive of what they have let go. lib/streams/walk.ts is the streams alone. */
export interface LogSource {
  /** Everything that a shard ever held, oldest first; the last one is the stream as it is now. */
  spans(shard: number): Promise<readonly Span[]>;
  /** Every sequence of a range, in order and without gaps, as a message or as gone. */
  walk(shard: number, created: string, from: number, to: number, signal: AbortSignal): AsyncIterable<LoggedMessage | Gone>;
  /** A message's payload; undefined when it is gone. */
  payload(shard: number, created: string, seq: number): Promise<Uint8Array | undefined>;
}

export interface GroupSum {
  readonly records: number;
  readonly sum: bigint;
}

/** The signature of lib/store/compare.ts, for one generation of one site. */
export interface TableSource {
  groups(
    request: {
      readonly cut: string;
      readonly of: "lines" | "content";
      readonly chars: number;
      readonly within: readonly string[] | undefined;
    },
    signal: AbortSignal,
  ): AsyncIterable<GroupSum & { readonly tenant: string; readonly day: number; readonly prefix: string }>;
  lines(
    batches: readonly string[],
    max: number,
    signal: AbortSignal,
  ): AsyncIterable<{
    readonly tenant: string;
    readonly batch: string;
    readonly day: number;
    readonly line: number;
    readonly content: bigint;
  }>;
  counts(signal: AbortSignal): AsyncIterable<{
    readonly tenant: string;
    readonly day: number;
    readonly rows: number;
    readonly counted: number;
    readonly same: boolean;
  }>;
}

/** A dead letter of the site's generation. */
export interface Letter {
  readonly stream: string;
  readonly originSeq: number;
  readonly batch: string;
  readonly reason: string;
  /** "all", or line numbers separated by commas. */
  readonly lines: string;
  /** Whether `lines` is the whole list. */
  readonly whole: boolean;
  payload(): Promise<Uint8Array | undefined>;
}

/** Whether a tenant's records of a day have left the tables by now. @param dayNs any nanosecond of the day */
export type Expired = (tenant: string, dayNs: bigint) => boolean;

export interface VerifyPorts {
  readonly log: LogSource;
  readonly table: TableSource;
  /** Every dead letter of the site's generation. */
  letters(signal: AbortSignal): AsyncIterable<Letter>;
  /** How far the projection of a shard is: the stream's creation time and the first sequence that is not settled. */
  progress(shard: number): Promise<{ readonly stream: string; readonly next: number } | undefined>;
  readonly expired?: Expired;
  /** Tenants whose messages are passed over, whatever they hold; rows of them are extra, unless they have expired. */
  readonly deleted?: (tenant: string) => boolean;
  /** Batches that the generation was made of; all when it is absent. Rows of others are then extra. */
  readonly wanted?: (envelope: Envelope) => boolean;
}

export interface Target {
  readonly site: string;
  readonly generation: number;
  readonly shards: number;
}

/** Called now and then: what is under way, and how many messages were read. */
export type Progress = (step: string, messages: number) => void;

export interface VerifyOptions {
  /** How long appends that were under way at the cut get before the streams' ends are looked at, in milliseconds. */
  readonly settleMs: number;
  /** How long the projection may take to reach them. */
  readonly catchUpMs: number;
  /** How often all is done again because messages from before the cut came late. */
  readonly rounds: number;
  /** Findings that are kept; all are counted. */
  readonly findingsMax: number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

export const VERIFY_DEFAULTS: VerifyOptions = {
  settleMs: 2_000,
  catchUpMs: 120_000,
  rounds: 4,
  findingsMax: 1_000,
  now: Date.now,
};

/**
 * `missing`: in the log and neither in the table nor parked. `duplicated`: in the table more often than in the log. `extra`: in the
 * table and not in the log. `parked`: in the table although parked. `misplaced`: all there, on another day than the log says.
 * `unreadable`: the log's message cannot be judged and is not parked. `unexplained`: gone from the log, and nothing says why.
 * `counts`: the projection `counts` disagrees with the rows. `changed`: the same line with another content in two generations.
 */
export type FindingKind = "missing" | "duplicated" | "extra" | "parked" | "misplaced" | "unreadable" | "unexplained" | "counts" | "changed";

export interface Finding {
  readonly kind: FindingKind;
  readonly tenant: string;
  readonly batch: string;
  /** Null when no message of the log is concerned. */
  readonly shard: number | null;
  readonly seq: number | null;
  /** The first of the lines concerned. */
  readonly lines: readonly number[];
  /** How many records are concerned. */
  readonly records: number;
  readonly detail: string;
}

export interface ShardResult {
  readonly shard: number;
  /** Incarnations of the stream, oldest first. */
  readonly spans: readonly Span[];
  /** Messages read; those made after the cut (`later`) are not judged. All below count messages, `gone` sequences. */
  readonly messages: number;
  readonly projected: number;
  readonly dead: number;
  readonly partlyDead: number;
  /** Expired by now, of a deleted tenant, or not wanted in this generation. */
  readonly passed: number;
  readonly later: number;
  readonly gone: number;
  readonly missing: number;
  readonly duplicated: number;
  readonly evidence: readonly string[];
}

/** `more`: the log does not reach back to everything that such a day may hold, and what it holds is there. */
export type DayState = "differs" | "more" | "uncertain";

export interface DayResult {
  readonly tenant: string;
  /** YYYY-MM-DD. */
  readonly day: string;
  readonly log: number;
  readonly table: number;
  readonly state: DayState;
}

export type Verdict = "equal" | "different" | "uncertain";

export interface Verification {
  readonly site: string;
  readonly generation: number;
  /** Batches with ids below it were judged. */
  readonly cut: string;
  readonly shards: readonly ShardResult[];
  /** Only those that are not equal. */
  readonly days: readonly DayResult[];
  readonly totals: { readonly tenantDays: number; readonly log: number; readonly table: number; readonly counted: number };
  readonly findings: readonly Finding[];
  readonly findingsTotal: number;
  /** False when the search for differing batches was ended by its bounds. */
  readonly searched: boolean;
  readonly verdict: Verdict;
  readonly ok: boolean;
}

export interface ComparedDay {
  readonly tenant: string;
  readonly day: string;
  readonly records: readonly [a: number, b: number];
}

export interface Comparison {
  readonly names: readonly [a: string, b: string];
  readonly cut: string;
  readonly days: readonly ComparedDay[];
  readonly totals: { readonly tenantDays: number; readonly records: readonly [a: number, b: number] };
  readonly findings: readonly Finding[];
  readonly findingsTotal: number;
  readonly searched: boolean;
  readonly verdict: Verdict;
  readonly ok: boolean;
}

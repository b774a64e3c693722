// Walking a stream by its headers: every sequence of a range, in order, as a message or as gone.
//
// Promises: no sequence is passed over in silence; one that the walk does not meet is asked of the stream's leader before it
// counts as gone, and then carries the reason; memory is bounded by one fetch; a reader may leave at any time.

import type { Consumer, NatsConnection } from "nats";
import { AckPolicy, DeliverPolicy, NatsError, nanos } from "nats";
import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS, STREAMS } from "../event/envelope.ts";
import { DEAD_HEADERS } from "./dead.ts";
import { askLeaderFor } from "./leader.ts";
import { streamState } from "./read.ts";

/** A message without its payload. */
export interface WalkedMessage {
  readonly kind: "message";
  readonly seq: number;
  readonly subject: string;
  readonly storedMs: number;
  /** The first value of a header, "" when there is none. */
  header(name: string): string;
}

/** Sequences that the stream does not hold, and how that is known. */
export interface WalkedGone {
  readonly kind: "gone";
  readonly from: number;
  readonly to: number;
  readonly evidence: string;
}

export type Walked = WalkedMessage | WalkedGone;

/** One stream as it was created once: its sequences begin at `from`. */
export interface WalkSpan {
  readonly created: string;
  readonly from: number;
  readonly to: number;
}

const FETCH_MESSAGES = 2_000;
const FETCH_WAIT_MS = 2_000;
/** Longer than anyone who reads the walk may think about one message. */
const IDLE_MS = 120_000;

/** Every sequence from `from` to `to` of a stream, in order. `to` must have been reached. @throws NatsError, the signal's reason */
export async function* walkStream(
  nc: NatsConnection,
  stream: string,
  from: number,
  to: number,
  signal: AbortSignal,
): AsyncGenerator<Walked, void, undefined> {
  if (from > to) return;
  await using stack = new AsyncDisposableStack();
  let cursor = stack.use(await openCursor(nc, stream, from));
  let fetchedMs = performance.now();
  for (let next = from; next <= to; ) {
    signal.throwIfAborted();
    // Whoever reads took so long that the server may have dropped the consumer.
    if (performance.now() - fetchedMs > IDLE_MS / 2) cursor = stack.use(await openCursor(nc, stream, next));
    fetchedMs = performance.now();
    const messages = await cursor.fetch(Math.min(FETCH_MESSAGES, to - next + 1));
    // A consumer that has nothing more may sit on a replica that lags: the leader has the last word.
    if (messages.length === 0) return yield* askLeader(nc, stream, next, to);
    for (const message of messages) {
      if (message.seq < next) continue;
      if (message.seq > next) yield* askLeader(nc, stream, next, Math.min(message.seq - 1, to));
      if (message.seq > to) return;
      yield message;
      next = message.seq + 1;
    }
  }
}

interface Cursor extends AsyncDisposable {
  /** The next messages; none when the consumer knows of no more. */
  fetch(max: number): Promise<WalkedMessage[]>;
}

async function openCursor(nc: NatsConnection, stream: string, from: number): Promise<Cursor> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  const info = await manager.consumers.add(stream, {
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: Math.max(1, from),
    headers_only: true,
    ack_policy: AckPolicy.None,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(IDLE_MS),
  });
  const consumer: Consumer = await nc.jetstream().consumers.get(stream, info.name);
  let pending = info.num_pending;
  return {
    async fetch(max) {
      if (pending === 0) pending = (await consumer.info()).num_pending;
      if (pending === 0) return [];
      const messages: WalkedMessage[] = [];
      // A fetch is taken to its end: one that is left early may lose messages.
      for await (const message of await consumer.fetch({ max_messages: Math.min(max, pending), expires: FETCH_WAIT_MS })) {
        pending = message.info.pending;
        messages.push(walked(message.seq, message.subject, message.info.timestampNanos / 1e6, (name) => message.headers?.get(name) ?? ""));
      }
      return messages;
    },
    async [Symbol.asyncDispose]() {
      await manager.consumers.delete(stream, info.name).catch((error: unknown) => {
        // It goes away by itself when it is idle.
        if (!(error instanceof NatsError)) throw error;
      });
    },
  };
}

function walked(seq: number, subject: string, storedMs: number, header: (name: string) => string): WalkedMessage {
  return { kind: "message", seq, subject, storedMs, header };
}

/** What the leader says of a range: the messages it holds, and the rest as gone. */
async function* askLeader(nc: NatsConnection, stream: string, from: number, to: number): AsyncGenerator<Walked, void, undefined> {
  for (let next = from; next <= to; ) {
    const found = await firstAt(nc, stream, next);
    const end = found === undefined || found.seq > to ? to : found.seq - 1;
    if (end >= next) yield { kind: "gone", from: next, to: end, evidence: await evidenceOf(nc, stream, end) };
    if (found === undefined || found.seq > to) return;
    yield walked(found.seq, found.subject, found.storedMs, found.header);
    next = found.seq + 1;
  }
}

async function evidenceOf(nc: NatsConnection, stream: string, seq: number): Promise<string> {
  const { firstSeq } = await streamState(nc, stream);
  if (seq < firstSeq) return `the stream begins at ${firstSeq}: older messages left by its limits or a purge`;
  return "deleted one by one: the stream's leader does not hold it, but does hold older ones";
}

/** The first message at or behind a sequence, from the leader; undefined when there is none. @throws when the leader does not say */
export async function firstAt(nc: NatsConnection, stream: string, seq: number): Promise<StoredMessage | undefined> {
  return await askLeaderFor(nc, stream, { seq, next_by_subj: ">" }, FETCH_WAIT_MS);
}

/** The streams of the shards as they are now: what verification reads, without an archive. */
export interface LiveLog {
  spans(shard: number): Promise<WalkSpan[]>;
  walk(shard: number, created: string, from: number, to: number, signal: AbortSignal): AsyncIterable<Walked>;
  /** A message's payload; undefined when the stream does not hold it any more. */
  payload(shard: number, created: string, seq: number): Promise<Uint8Array | undefined>;
}

/** @throws NatsError when JetStream does not answer */
export function liveLog(nc: NatsConnection): LiveLog {
  return {
    async spans(shard) {
      const { created, lastSeq } = await streamState(nc, STREAMS.logs(shard));
      return [{ created, from: 1, to: lastSeq }];
    },
    walk: (shard, _created, from, to, signal) => walkStream(nc, STREAMS.logs(shard), from, to, signal),
    payload: (shard, _created, seq) => payloadAt(nc, STREAMS.logs(shard), seq),
  };
}

async function payloadAt(nc: NatsConnection, stream: string, seq: number): Promise<Uint8Array | undefined> {
  return (await askLeaderFor(nc, stream, { seq }, FETCH_WAIT_MS))?.payload;
}

/** What DEAD_LETTERS says of a message: which lines of it are parked. */
export interface Letter {
  /** Sequence in DEAD_LETTERS. */
  readonly seq: number;
  readonly stream: string;
  readonly originSeq: number;
  readonly batch: string;
  readonly reason: string;
  /** "all", or a list that may have been cut; see `whole`. */
  readonly lines: string;
  /** Whether `lines` is all of it. */
  readonly whole: boolean;
  payload(): Promise<Uint8Array | undefined>;
}

/** parker() cuts a list of lines to this length. */
export const LINES_CHARS_MAX = 500;

/** The dead letters of a site's generation, oldest first. */
export async function* walkLetters(
  nc: NatsConnection,
  site: string,
  generation: number,
  signal: AbortSignal,
): AsyncGenerator<Letter, void, undefined> {
  const { lastSeq } = await streamState(nc, STREAMS.deadLetters);
  for await (const item of walkStream(nc, STREAMS.deadLetters, 1, lastSeq, signal)) {
    if (item.kind === "gone") continue;
    const { seq, header } = item;
    if (header(DEAD_HEADERS.site) !== site || header(DEAD_HEADERS.generation) !== String(generation)) continue;
    const lines = header(DEAD_HEADERS.lines);
    yield {
      seq,
      stream: header(DEAD_HEADERS.stream),
      originSeq: Number(header(DEAD_HEADERS.sequence)),
      batch: header(HEADERS.batch),
      reason: header(DEAD_HEADERS.reason),
      lines,
      whole: lines.length < LINES_CHARS_MAX,
      payload: () => payloadAt(nc, STREAMS.deadLetters, seq),
    };
  }
}

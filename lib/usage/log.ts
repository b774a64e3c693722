// The log as usage is recomputed from it: every shard's messages with their payloads, archive first, in the order of the times at
// which they were stored.
//
// Promises: what nobody holds any more is told as a range of time in which it may have been stored; memory is bounded by one
// read a shard; it begins close to the time that is asked for, not at the beginning of the log.

import { RelogError } from "../base/errors.ts";
import { sleep } from "../base/loop.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { QUARTER_MS } from "../store/usage.ts";

/** Sequences of one incarnation of a shard's stream. */
export interface Span {
  /** When it was created, RFC 3339. */
  readonly created: string;
  readonly from: number;
  readonly to: number;
}

export interface LogPorts {
  readonly shards: number;
  /** Everything that a shard ever held, oldest first. */
  spans(shard: number): Promise<readonly Span[]>;
  /** Messages from a sequence on, or the sequences in front of the first one that nobody holds. */
  read(
    shard: number,
    created: string,
    from: number,
    bounds: { readonly messagesMax: number; readonly bytesMax: number },
  ): Promise<{ readonly messages: readonly StoredMessage[]; readonly missing: { readonly to: number } | undefined }>;
}

export type LogItem =
  /** A shard's log goes back to here: comes before everything else of it. */
  | { readonly kind: "begin"; readonly ms: number }
  | { readonly kind: "message"; readonly shard: number; readonly message: StoredMessage }
  /** Messages that were stored in this time may be gone. */
  | { readonly kind: "gap"; readonly fromMs: number; readonly toMs: number };

const BOUNDS = { messagesMax: 64, bytesMax: 8 * 2 ** 20 };
const ONE = { messagesMax: 1, bytesMax: 8 * 2 ** 20 };
const RETRIES = 5;
const RETRY_MS = 200;

/**
 * What was stored from `sinceMs` until `untilMs`, oldest first; a gap comes before whatever follows it.
 * @throws what the ports throw, the signal's reason
 */
export async function* mergedLog(ports: LogPorts, sinceMs: number, untilMs: number, signal: AbortSignal): AsyncGenerator<LogItem> {
  const heads: { items: AsyncGenerator<LogItem>; item: LogItem }[] = [];
  for (let shard = 0; shard < ports.shards; shard++) {
    const items = shardLog(ports, shard, sinceMs, untilMs, signal);
    const first = await items.next();
    if (!first.done) heads.push({ items, item: first.value });
  }
  const orderOf = ({ item }: { item: LogItem }): number => (item.kind === "message" ? item.message.storedMs : Number.NEGATIVE_INFINITY);
  while (heads.length > 0) {
    const head = heads.reduce((least, one) => (orderOf(one) < orderOf(least) ? one : least));
    yield head.item;
    const next = await head.items.next();
    if (next.done) heads.splice(heads.indexOf(head), 1);
    else head.item = next.value;
  }
}

async function* shardLog(ports: LogPorts, shard: number, sinceMs: number, untilMs: number, signal: AbortSignal): AsyncGenerator<LogItem> {
  const spans = await ports.spans(shard);
  let heldMs = Date.parse(spans[0]!.created);
  // Before the first stream was created there may have been another installation; hardly in the same quarter of an hour.
  yield { kind: "begin", ms: Math.floor(heldMs / QUARTER_MS) * QUARTER_MS };
  for (const [i, span] of spans.entries()) {
    const createdMs = Date.parse(span.created);
    // What an earlier stream held behind its last segment is lost.
    if (i > 0) yield { kind: "gap", fromMs: heldMs, toMs: createdMs };
    const following = spans[i + 1];
    if (following !== undefined && Date.parse(following.created) < sinceMs) continue;
    let open: number | undefined;
    heldMs = createdMs;
    for await (const item of spanLog(ports, shard, span, sinceMs, signal)) {
      if (item === "missing") {
        open ??= heldMs;
        continue;
      }
      if (open !== undefined) yield { kind: "gap", fromMs: open, toMs: item.storedMs };
      open = undefined;
      heldMs = item.storedMs;
      if (heldMs > untilMs) return;
      yield { kind: "message", shard, message: item };
    }
    if (open !== undefined) yield { kind: "gap", fromMs: open, toMs: following === undefined ? untilMs : Date.parse(following.created) };
  }
}

async function* spanLog(
  ports: LogPorts,
  shard: number,
  span: Span,
  sinceMs: number,
  signal: AbortSignal,
): AsyncGenerator<StoredMessage | "missing"> {
  let retries = 0;
  for (let next = await firstSince(ports, shard, span, sinceMs); next <= span.to; ) {
    signal.throwIfAborted();
    const { messages, missing } = await ports.read(shard, span.created, next, BOUNDS);
    if (messages.length === 0 && missing === undefined) {
      // A replica that lags says nothing for a while; a stream that lost its end says nothing for ever.
      if (retries++ < RETRIES) {
        await sleep(RETRY_MS, signal);
        continue;
      }
      yield "missing";
      return;
    }
    retries = 0;
    if (missing !== undefined) {
      yield "missing";
      next = missing.to + 1;
      continue;
    }
    for (const message of messages) {
      if (message.seq > span.to) return;
      yield message;
      next = message.seq + 1;
    }
  }
}

/** The first sequence of a span that may have been stored at a time or later. */
async function firstSince(ports: LogPorts, shard: number, span: Span, ms: number): Promise<number> {
  if (Date.parse(span.created) >= ms) return span.from;
  let [low, high] = [span.from, span.to + 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const message = await firstAt(ports, shard, span, middle);
    if (message === undefined || message.storedMs >= ms) high = middle;
    else low = message.seq + 1;
  }
  return low;
}

async function firstAt(ports: LogPorts, shard: number, span: Span, seq: number): Promise<StoredMessage | undefined> {
  for (let at = seq, tries = 0; at <= span.to; tries++) {
    const { messages, missing } = await ports.read(shard, span.created, at, ONE);
    if (messages[0] !== undefined) return messages[0];
    if (missing === undefined) return undefined;
    if (missing.to < at || tries > span.to) throw new RelogError("internal", `shard ${shard} is missing ${at} to ${missing.to}`);
    at = missing.to + 1;
  }
  return undefined;
}

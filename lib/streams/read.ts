// Reading a range of a stream by sequence.
//
// Promises: messages come in order and without gaps, or the gap is said; a read is bounded in messages and bytes; reading
// leaves nothing behind on the server (direct batch get, NATS ADR-31: no consumer, no state), so the same call serves
// live projection, settling and rebuilds.

import type { Msg, MsgHdrs, NatsConnection } from "nats";
import { createInbox, NatsError } from "nats";
import type { StoredMessage } from "../event/envelope.ts";
import { INBOX_PREFIX } from "../event/inbox.ts";

export interface ReadResult {
  readonly messages: StoredMessage[];
  /** Messages of the stream behind the last one read. */
  readonly pending: number;
  /** Sequences before the first message that the stream does not hold: expired, deleted, or never there. */
  readonly missing: { readonly from: number; readonly to: number } | undefined;
}

export interface ReadBounds {
  readonly messagesMax: number;
  readonly bytesMax: number;
}

const STATE_TIMEOUT_MS = 5_000;
const END_OF_BATCH = 204;
const NOT_FOUND = 404;

/**
 * Reads from sequence `from` on. Stops before a gap, so that `messages` are contiguous; a gap at the very start is `missing`.
 * @throws NatsError when the stream does not answer within `timeoutMs`
 */
export async function readStream(
  nc: NatsConnection,
  stream: string,
  from: number,
  bounds: ReadBounds,
  timeoutMs: number,
): Promise<ReadResult> {
  const request = JSON.stringify({ seq: from, batch: bounds.messagesMax, max_bytes: bounds.bytesMax });
  const { messages, pending } = await collect(nc, `$JS.API.DIRECT.GET.${stream}`, request, timeoutMs);
  const first = messages[0];
  if (first === undefined) return { messages, pending: 0, missing: undefined };
  if (first.seq !== from) {
    // A replica may lag, but it never skips: what it passed over is asked of the leader before it is called missing.
    for (let seq = from; seq < first.seq; seq++) {
      if (await leaderHas(nc, stream, seq))
        return { messages: [], pending: first.seq - from + messages.length + pending, missing: undefined };
      if (seq - from >= LEADER_PROBES_MAX) break;
    }
    return { messages: [], pending: messages.length + pending, missing: { from, to: first.seq - 1 } };
  }
  const contiguous = messages.findIndex((message, i) => message.seq !== from + i);
  if (contiguous < 0) return { messages, pending, missing: undefined };
  return { messages: messages.slice(0, contiguous), pending: pending + messages.length - contiguous, missing: undefined };
}

/** Sequences of a hole that are asked for one by one; a hole that starts with this many missing ones is a hole. */
const LEADER_PROBES_MAX = 16;

async function leaderHas(nc: NatsConnection, stream: string, seq: number): Promise<boolean> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  try {
    await manager.streams.getMessage(stream, { seq });
    return true;
  } catch (error) {
    if (error instanceof NatsError && error.api_error?.code === NOT_FOUND) return false;
    throw error;
  }
}

/** The messages that one direct get answers with, in order. @throws NatsError or Error when the answer does not come to its end */
export async function collect(
  nc: NatsConnection,
  subject: string,
  request: string,
  timeoutMs: number,
): Promise<{ messages: StoredMessage[]; pending: number }> {
  const inbox = createInbox(INBOX_PREFIX);
  const subscription = nc.subscribe(inbox);
  const silence = setTimeout(() => subscription.unsubscribe(), timeoutMs);
  try {
    nc.publish(subject, request, { reply: inbox });
    const messages: StoredMessage[] = [];
    let pending = 0;
    for await (const reply of subscription) {
      silence.refresh();
      const status = reply.headers?.code ?? 0;
      if (status === NOT_FOUND) return { messages, pending: 0 };
      if (status === END_OF_BATCH) return { messages, pending: Number(reply.headers?.get("Nats-Num-Pending") || pending) };
      if (status !== 0 || reply.headers === undefined) {
        throw new Error(`${subject} answered ${status} ${reply.headers?.description ?? "without headers"}`);
      }
      messages.push(stored(reply, reply.headers));
      pending = Number(reply.headers.get("Nats-Num-Pending"));
    }
    throw new Error(`${subject} did not answer to the end within ${timeoutMs} ms`);
  } finally {
    clearTimeout(silence);
    subscription.unsubscribe();
  }
}

function stored(message: Msg, header: MsgHdrs): StoredMessage {
  return {
    seq: Number(header.get("Nats-Sequence")),
    subject: header.get("Nats-Subject"),
    payload: message.data,
    header: (name) => header.get(name),
    pairs: () => pairsOf(header),
    storedMs: Date.parse(header.get("Nats-Time-Stamp")),
  };
}

/** Headers that the server adds to an answer of a direct get. Source: NATS ADR-31. */
const ADDED: ReadonlySet<string> = new Set(
  ["Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence", "Nats-UpTo-Sequence"].map(
    (name) => name.toLowerCase(),
  ),
);

function pairsOf(header: MsgHdrs): [string, string][] {
  return [...header].flatMap(([name, values]) =>
    ADDED.has(name.toLowerCase()) ? [] : values.map((value): [string, string] => [name, value]),
  );
}

export interface StreamState {
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly messages: number;
  readonly bytes: number;
  /** Changes when the stream was deleted and made again. */
  readonly created: string;
  /** Age at which the server itself drops messages, in milliseconds; 0 is never. */
  readonly ageMaxMs: number;
}

/** @throws NatsError when the stream does not exist or its leader does not answer within `timeoutMs` */
export async function streamState(nc: NatsConnection, stream: string, timeoutMs = STATE_TIMEOUT_MS): Promise<StreamState> {
  const manager = await nc.jetstreamManager({ checkAPI: false, timeout: timeoutMs });
  const info = await manager.streams.info(stream);
  const { first_seq, last_seq, messages, bytes } = info.state;
  return { firstSeq: first_seq, lastSeq: last_seq, messages, bytes, created: info.created, ageMaxMs: info.config.max_age / 1e6 };
}

/** Removes every message below a sequence. @throws NatsError; what was removed is then unknown */
export async function purgeBelow(nc: NatsConnection, stream: string, seq: number): Promise<void> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  await manager.streams.purge(stream, { seq });
}

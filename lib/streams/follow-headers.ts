// Following a stream by its headers: every message within milliseconds of its being stored, in order, for ever.
//
// Promises: each sequence is passed on once, as a message or as gone; one that does not come is asked of the stream's leader
// before it counts as gone; a consumer that falls silent, is lost, skips or lags is made again at the next sequence; a stream
// that was made again is followed from its beginning, and said. Memory is bounded by one request. Nothing is acknowledged and
// nothing stays on the server.

import type { Msg, NatsConnection } from "nats";
import { AckPolicy, DeliverPolicy, Events, nanos } from "nats";
import { messageOf } from "../base/errors.ts";
import { backoffMs, sleep } from "../base/loop.ts";
import { Mailbox } from "./mailbox.ts";
import { streamState } from "./read.ts";
import { firstAt } from "./walk.ts";

export interface FollowedMessage {
  readonly seq: number;
  /** Milliseconds since the epoch. */
  readonly storedMs: number;
  /** The first value of a header, "" when there is none. */
  header(name: string): string;
}

/** Where following begins: at a sequence of the stream that was created then, or with what was stored from a time on. */
export type FollowFrom = { readonly created: string; readonly next: number } | { readonly sinceMs: number };

export interface Followed {
  /** The stream is followed from `next` on; its end is at `lastSeq` now. Told again when it was made again, or went back. */
  begun(at: { readonly created: string; readonly next: number; readonly lastSeq: number; readonly firstSeq: number }): void;
  message(message: FollowedMessage): void;
  gone(from: number, to: number): void;
  /** Why the stream cannot be followed now; undefined when it can again. */
  fault(why: string | undefined): void;
}

const INACTIVE_MS = 30_000;
const OPEN_TIMEOUT_MS = 2_000;
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2_000;

/** Follows until the signal aborts; never throws for a fault of NATS. */
export async function followHeaders(
  nc: NatsConnection,
  stream: string,
  from: FollowFrom,
  followed: Followed,
  signal: AbortSignal,
): Promise<void> {
  const follower = new Follower(nc, stream, from, followed);
  onReconnect(nc, () => follower.reopen("reconnected"));
  for (let attempt = 0; !signal.aborted; ) {
    const before = follower.heard;
    try {
      await follower.run(signal);
    } catch (error) {
      if (signal.aborted) return;
      // What is made again at once is not worth a word.
      attempt = follower.heard > before ? 0 : attempt + 1;
      if (attempt > 1) followed.fault(messageOf(error));
      await sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS), signal);
    }
  }
}

/** Calls `then` after each reconnection, until the connection is closed. */
function onReconnect(nc: NatsConnection, then: () => void): void {
  const states = nc.status();
  (async () => {
    for await (const { type } of states) if (type === Events.Reconnect) then();
  })().catch(then);
}

class Follower {
  readonly #nc: NatsConnection;
  readonly #stream: string;
  readonly #from: FollowFrom;
  readonly #followed: Followed;
  #created: string | undefined;
  #next: number | undefined;
  /** Where it was when it was last compared with the stream's end. */
  #compared = 0;
  #mailbox: Mailbox | undefined;
  /** Answers of consumers so far. */
  heard = 0;

  constructor(nc: NatsConnection, stream: string, from: FollowFrom, followed: Followed) {
    this.#nc = nc;
    this.#stream = stream;
    this.#from = from;
    this.#followed = followed;
    if ("created" in from) [this.#created, this.#next] = [from.created, from.next];
  }

  /** What was on its way may not come any more. */
  reopen(why: string): void {
    this.#mailbox?.fail(new Error(why));
  }

  /** One consumer, until it fails or the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const start = await this.#locate();
    using consumer = await openConsumer(this.#nc, this.#stream, start);
    if (this.#next === undefined) {
      this.#next = consumer.next;
      const { created, lastSeq, firstSeq } = await streamState(this.#nc, this.#stream);
      this.#created = created;
      this.#followed.begun({ created, next: this.#next, lastSeq, firstSeq });
    }
    using mailbox = new Mailbox(this.#nc, consumer.subject, () => this.#behind(), signal);
    this.#mailbox = mailbox;
    this.#followed.fault(undefined);
    for (;;) {
      const messages = await mailbox.take();
      this.heard += messages.length;
      for (const message of messages) await this.#one(message);
    }
  }

  /** Where the stream is, and so where to begin. */
  async #locate(): Promise<number | Date> {
    const { created, lastSeq, firstSeq } = await streamState(this.#nc, this.#stream);
    const known = this.#created;
    if (this.#next === undefined) return new Date("sinceMs" in this.#from ? this.#from.sinceMs : 0);
    // A stream that was made again, or lost its end with the power: what comes now are other messages.
    if (created !== known) this.#next = 1;
    else if (this.#next > lastSeq + 1) this.#next = lastSeq + 1;
    this.#created = created;
    const next = this.#next;
    this.#followed.begun({ created, next, lastSeq, firstSeq });
    // Nothing may be left of it, and then no message would ever say so.
    const first = next > lastSeq ? next : ((await firstAt(this.#nc, this.#stream, next))?.seq ?? lastSeq + 1);
    if (first > next) this.#followed.gone(next, first - 1);
    this.#next = first;
    return first;
  }

  /** Whether the stream has something that does not come. */
  async #behind(): Promise<boolean> {
    const { created, lastSeq } = await streamState(this.#nc, this.#stream);
    const stands = this.#next === this.#compared;
    this.#compared = this.#next!;
    return created !== this.#created || (stands && lastSeq >= this.#next!);
  }

  async #one(message: Msg): Promise<void> {
    const { seq, storedMs } = placeOf(message.reply ?? "");
    const next = this.#next!;
    if (seq < next) return;
    if (seq > next) {
      const found = await firstAt(this.#nc, this.#stream, next);
      if (found?.seq !== seq) throw new Error(`${this.#stream}: sequence ${next} did not come`);
      this.#followed.gone(next, seq - 1);
    }
    this.#next = seq + 1;
    const { headers } = message;
    this.#followed.message({ seq, storedMs, header: (name) => headers?.get(name) ?? "" });
  }
}

/** Sequence and time of a message, from the subject of its acknowledgement. Source: NATS ADR-15. */
function placeOf(reply: string): { readonly seq: number; readonly storedMs: number } {
  const tokens = reply.split(".");
  // $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, or with domain and account before the stream.
  const at = tokens.length === 9 ? 5 : 7;
  const [seq, time] = [Number(tokens[at]), Number(tokens[at + 2])];
  if (!(seq > 0 && time > 0)) throw new Error(`no place of a message: ${reply.slice(0, 100)}`);
  return { seq, storedMs: time / 1e6 };
}

interface OpenConsumer extends Disposable {
  /** Where to ask for its next messages. */
  readonly subject: string;
  /** The sequence that it begins at. */
  readonly next: number;
}

async function openConsumer(nc: NatsConnection, stream: string, start: number | Date): Promise<OpenConsumer> {
  const manager = await nc.jetstreamManager({ checkAPI: false, timeout: OPEN_TIMEOUT_MS });
  const place =
    typeof start === "number"
      ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: start }
      : { deliver_policy: DeliverPolicy.StartTime, opt_start_time: start.toISOString() };
  const { name, delivered } = await manager.consumers.add(stream, {
    ...place,
    headers_only: true,
    ack_policy: AckPolicy.None,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(INACTIVE_MS),
  });
  return {
    subject: `$JS.API.CONSUMER.MSG.NEXT.${stream}.${name}`,
    next: delivered.stream_seq + 1,
    [Symbol.dispose]() {
      // Nobody waits for it: it goes away by itself when it is idle.
      if (!nc.isClosed()) manager.consumers.delete(stream, name).catch(() => undefined);
    },
  };
}

// The accounts in CONTROL: appended with compare-and-set, read from the start, followed.
//
// Promises: a message is stored only if the tenant's last one is where the writer thinks; readers get every message in the
// stream's order, once; a follower learns of a change within milliseconds, at the latest after the poll, or after CHANGE_PATIENCE_MS
// when an answer is lost with a server, and a fault of NATS leaves what it knows. A stream that is shorter than what was read is said, never taken for the truth.

import type { NatsConnection } from "nats";
import { NatsError } from "nats";
import { messageOf, RelogError } from "../base/errors.ts";
import { Bell, sleep } from "../base/loop.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { STREAMS } from "../event/envelope.ts";
import { JETSTREAM } from "./codes.ts";
import { insistent, PATIENCE_MS } from "./insist.ts";
import { readStream, streamState } from "./read.ts";

const ACCOUNTS = "control.accounts.";
const ALL_ACCOUNTS = `${ACCOUNTS}>`;
const BOUNDS = { messagesMax: 1_000, bytesMax: 4 * 2 ** 20 };
const TIMEOUT_MS = 5_000;
/** Meanwhile a key may be revoked. What was never read yet may be large, and nobody waits for a change of it. */
const CHANGE_PATIENCE_MS = [400, 1_000, 1_000, 1_000, 1_000] as const;
const POLL_MS = 1_000;
/** A hint comes before the write is decided and replicated: it is looked for this long after it. */
const HINT_DELAYS_MS = [5, 20, 60, 150] as const;
const REPLICA_LAG_MS = 20;
const UNAVAILABLE_RETRY_S = 2;
const REPLACED = "CONTROL was made again; restart this process to read the new one";

/** The tenant whose account a message of CONTROL is about; undefined when it is about none. */
export function accountOf(subject: string): string | undefined {
  return subject.startsWith(ACCOUNTS) ? subject.slice(ACCOUNTS.length) : undefined;
}

/**
 * Appends a message about a tenant's account, if the last one about it is at `lastSeq` (0: there is none).
 * @param id makes sure that a repetition is stored once
 */
export async function appendAccount(
  nc: NatsConnection,
  tenant: string,
  message: object,
  id: string,
  lastSeq: number,
): Promise<"stored" | "refused" | "unknown"> {
  const expect = { lastSubjectSequence: lastSeq };
  try {
    await nc
      .jetstream({ timeout: TIMEOUT_MS })
      .publish(`${ACCOUNTS}${tenant}`, JSON.stringify(message), { msgID: `account:${id}`, expect });
    return "stored";
  } catch (error) {
    if (error instanceof NatsError && error.api_error?.err_code === JETSTREAM.wrongLastSequence) return "refused";
    if (error instanceof NatsError && error.api_error !== undefined && error.api_error.err_code === JETSTREAM.storeFailed)
      throw new RelogError("stream_full", `CONTROL takes no more: ${error.message}`, { cause: error });
    return "unknown";
  }
}

/** There is another CONTROL now than the one that was read: what is known stays, and nothing of the new one is learnt. */
export class ControlReplaced extends Error {}

/** Whether reading the accounts failed because the stream was made again. */
export function isControlReplaced(error: unknown): boolean {
  return error instanceof RelogError && error.cause instanceof ControlReplaced;
}

/** Reads the accounts of CONTROL, in order and each message once. */
export interface AccountsReader {
  /** Takes everything that the stream holds by now. @throws RelogError stream_unavailable */
  toEnd(): Promise<void>;
  /** Takes every message until the signal aborts. @param onFault told when the stream cannot be read, and undefined when it can be again */
  follow(onFault: (why: string | undefined) => void, signal: AbortSignal): Promise<void>;
}

/** @param take gets the messages about accounts */
export function accountsReader(nc: NatsConnection, take: (message: StoredMessage) => void): AccountsReader {
  return new Reader(nc, take);
}

class Reader implements AccountsReader {
  readonly #nc: NatsConnection;
  readonly #take: (message: StoredMessage) => void;
  #next = 1;
  /** Messages about accounts that were taken. */
  #taken = 0;
  /** The stream that was read first. */
  #created: string | undefined;
  #reading: Promise<unknown> = Promise.resolve();

  constructor(nc: NatsConnection, take: (message: StoredMessage) => void) {
    this.#nc = nc;
    this.#take = take;
  }

  async toEnd(): Promise<void> {
    try {
      const known = this.#next - 1;
      const { created, lastSeq } = await this.#ask((timeoutMs) => streamState(this.#nc, STREAMS.control, timeoutMs));
      this.#created ??= created;
      if (created !== this.#created || lastSeq < known) throw new ControlReplaced(REPLACED);
      await this.#read(lastSeq);
    } catch (cause) {
      const text = `the accounts cannot be read: ${messageOf(cause)}`;
      throw new RelogError("stream_unavailable", text, { cause, retryAfterS: UNAVAILABLE_RETRY_S });
    }
  }

  async follow(onFault: (why: string | undefined) => void, signal: AbortSignal): Promise<void> {
    const wake = new Bell();
    let hinted = 0;
    const callback = (): void => {
      hinted++;
      wake.ring();
    };
    const hints = this.#nc.subscribe(ALL_ACCOUNTS, { callback });
    try {
      while (!signal.aborted) {
        const after = hinted;
        hinted = 0;
        try {
          await (after > 0 ? this.#afterHints(after, signal) : this.toEnd());
          onFault(undefined);
        } catch (error) {
          onFault(messageOf(error));
          hinted = 0;
        }
        await wake.wait(POLL_MS, signal);
      }
    } finally {
      hints.unsubscribe();
    }
  }

  /** Looks until as many messages about accounts came as were hinted at: what else is in the stream is not announced. */
  async #afterHints(count: number, signal: AbortSignal): Promise<void> {
    const wanted = this.#taken + count;
    for (const ms of HINT_DELAYS_MS) {
      await sleep(ms, signal);
      await this.#read(0);
      if (this.#taken >= wanted) return;
    }
  }

  #ask<T>(ask: (timeoutMs: number) => Promise<T>): Promise<T> {
    return insistent(ask, this.#next === 1 ? PATIENCE_MS : CHANGE_PATIENCE_MS);
  }

  /** One after the other: a message must not be taken twice. */
  #read(target: number): Promise<void> {
    const done = this.#reading.then(() => this.#readOn(target));
    this.#reading = done.catch(() => undefined);
    return done;
  }

  /** Reads to `target`, or to where a replica ends. */
  async #readOn(target: number): Promise<void> {
    const deadline = performance.now() + TIMEOUT_MS;
    for (;;) {
      const from = this.#next;
      const { messages, missing } = await this.#ask((timeoutMs) => readStream(this.#nc, STREAMS.control, from, BOUNDS, timeoutMs));
      for (const message of messages) {
        this.#next = message.seq + 1;
        if (accountOf(message.subject) === undefined) continue;
        this.#take(message);
        this.#taken++;
      }
      if (missing !== undefined) this.#next = missing.to + 1;
      if (messages.length > 0 || missing !== undefined) continue;
      if (this.#next > target) return;
      // A replica may lag behind the leader that said where the end is.
      if (performance.now() > deadline) throw new Error(`sequence ${this.#next} of ${STREAMS.control} does not come`);
      await sleep(REPLICA_LAG_MS);
    }
  }
}

/**
 * The messages of CONTROL before a sequence, newest first, whatever they are about.
 * @param before undefined begins at the end
 * @returns where to go on; undefined when that was the first one
 * @throws NatsError
 */
export async function readControlBack(
  nc: NatsConnection,
  before: number | undefined,
  messagesMax: number,
): Promise<{ readonly messages: readonly StoredMessage[]; readonly before: number | undefined }> {
  const last = Math.min((before ?? Number.POSITIVE_INFINITY) - 1, (await streamState(nc, STREAMS.control)).lastSeq);
  const from = Math.max(1, last - messagesMax + 1);
  const found: StoredMessage[] = [];
  let deadline = performance.now() + TIMEOUT_MS;
  for (let next = from; next <= last; ) {
    const { messages, missing } = await readStream(nc, STREAMS.control, next, { ...BOUNDS, messagesMax: last - next + 1 }, TIMEOUT_MS);
    if (messages.length === 0 && missing === undefined) {
      // A replica may lag behind the leader that said where the end is; a page without its newest entries would hide them.
      if (performance.now() > deadline) throw new Error(`sequence ${next} of ${STREAMS.control} does not come`);
      await sleep(REPLICA_LAG_MS);
      continue;
    }
    deadline = performance.now() + TIMEOUT_MS;
    found.push(...messages.filter(({ seq }) => seq <= last));
    next = missing === undefined ? next + messages.length : missing.to + 1;
  }
  return { messages: found.reverse(), before: from > 1 ? from : undefined };
}

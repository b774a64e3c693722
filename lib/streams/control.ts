// The accounts in CONTROL: appended with compare-and-set, read from the start, followed.
//
// Promises: a message is stored only if the tenant's last one is where the writer thinks; readers get every message in the
// stream's order, once; a follower learns of a change within milliseconds, at the latest after the poll, or after PATIENCE_MS
// when an answer is lost with a server, and a fault of NATS leaves what it knows. A stream that is shorter than what was read is said, never taken for the truth.

import type { NatsConnection } from "nats";
import { NatsError } from "nats";
import { messageOf, RelogError } from "../base/errors.ts";
import { sleep } from "../base/loop.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { STREAMS } from "../event/envelope.ts";
import { JETSTREAM } from "./codes.ts";
import { readStream, streamState } from "./read.ts";

const ACCOUNTS = "control.accounts.";
const ALL_ACCOUNTS = `${ACCOUNTS}>`;
const BOUNDS = { messagesMax: 1_000, bytesMax: 4 * 2 ** 20 };
const TIMEOUT_MS = 5_000;
/**
 * How long a follower waits for an answer: one that was on its way to a server that died never comes, and meanwhile a key may
 * be revoked. It asks again, with more patience, and with less when it was answered.
 */
const PATIENCE_MS = [400, 1_000, TIMEOUT_MS] as const;
/** So many answers in a row that did not come are a fault; one is an election, or a connection that was lost. */
const FAULTS_MIN = 2;
const POLL_MS = 1_000;
/** A hint comes before the write is decided and replicated: it is looked for this long after it. */
const HINT_DELAYS_MS = [5, 20, 60, 150] as const;
const REPLICA_LAG_MS = 20;
const UNAVAILABLE_RETRY_S = 2;

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
  /** The stream that was read first. */
  #created: string | undefined;
  #reading: Promise<unknown> = Promise.resolve();

  constructor(nc: NatsConnection, take: (message: StoredMessage) => void) {
    this.#nc = nc;
    this.#take = take;
  }

  async toEnd(timeoutMs: number = TIMEOUT_MS): Promise<void> {
    try {
      const { created, lastSeq } = await streamState(this.#nc, STREAMS.control, timeoutMs);
      this.#created ??= created;
      if (created !== this.#created || lastSeq < this.#next - 1)
        throw new Error("CONTROL was made again; restart this process to read the new one");
      await this.#read(lastSeq, timeoutMs);
    } catch (cause) {
      const text = `the accounts cannot be read: ${messageOf(cause)}`;
      throw new RelogError("stream_unavailable", text, { cause, retryAfterS: UNAVAILABLE_RETRY_S });
    }
  }

  async follow(onFault: (why: string | undefined) => void, signal: AbortSignal): Promise<void> {
    let wake = new AbortController();
    let [hinted, faults] = [false, 0];
    const callback = (): void => {
      hinted = true;
      wake.abort();
    };
    const hints = this.#nc.subscribe(ALL_ACCOUNTS, { callback });
    const stop = (): void => wake.abort();
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        wake = new AbortController();
        const after = hinted;
        hinted = false;
        const patienceMs = PATIENCE_MS[Math.min(faults, PATIENCE_MS.length - 1)]!;
        try {
          await (after ? this.#afterHint(patienceMs, signal) : this.toEnd(patienceMs));
          faults = Math.max(0, Math.min(faults, PATIENCE_MS.length) - 1);
          onFault(undefined);
        } catch (error) {
          if (++faults >= FAULTS_MIN) onFault(messageOf(error));
          if (faults < PATIENCE_MS.length) continue;
          hinted = false;
        }
        if (!hinted && !signal.aborted) await sleep(POLL_MS, wake.signal);
      }
    } finally {
      signal.removeEventListener("abort", stop);
      hints.unsubscribe();
    }
  }

  async #afterHint(patienceMs: number, signal: AbortSignal): Promise<void> {
    for (const ms of HINT_DELAYS_MS) {
      await sleep(ms, signal);
      if (await this.#read(0, patienceMs)) return;
    }
  }

  /** One after the other: a message must not be taken twice. Returns whether there was anything. */
  #read(target: number, timeoutMs: number): Promise<boolean> {
    const done = this.#reading.then(() => this.#readOn(target, timeoutMs));
    this.#reading = done.catch(() => undefined);
    return done;
  }

  /** Reads to `target`, or to where a replica ends. */
  async #readOn(target: number, timeoutMs: number): Promise<boolean> {
    const [from, deadline] = [this.#next, performance.now() + timeoutMs];
    for (;;) {
      const { messages, missing } = await readStream(this.#nc, STREAMS.control, this.#next, BOUNDS, timeoutMs);
      for (const message of messages) {
        this.#next = message.seq + 1;
        if (accountOf(message.subject) !== undefined) this.#take(message);
      }
      if (missing !== undefined) this.#next = missing.to + 1;
      if (messages.length > 0 || missing !== undefined) continue;
      if (this.#next > target) return this.#next > from;
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
  for (let next = from; next <= last; ) {
    const { messages, missing } = await readStream(nc, STREAMS.control, next, { ...BOUNDS, messagesMax: last - next + 1 }, TIMEOUT_MS);
    if (messages.length === 0 && missing === undefined) break;
    found.push(...messages.filter(({ seq }) => seq <= last));
    next = missing === undefined ? next + messages.length : missing.to + 1;
  }
  return { messages: found.reverse(), before: from > 1 ? from : undefined };
}

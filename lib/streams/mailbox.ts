// What a pull consumer sends, as it comes: asked for one batch after the other, and watched.
//
// Promises: what came is taken in order, also when the consumer failed behind it; one that is lost, silent, or lags behind its
// stream fails the mailbox; memory is bounded by two batches.

import type { Msg, NatsConnection } from "nats";
import { createInbox, nanos } from "nats";
import { INBOX_PREFIX } from "../event/inbox.ts";

const BATCH_MESSAGES = 1_000;
const EXPIRES_MS = 30_000;
const HEARTBEAT_MS = 500;
/** A little more than two heartbeats. */
const SILENCE_MS = 1_200;
/** How often the end of the stream is compared with what came. */
const IDLE_CHECK_MS = 5_000;

const HEARTBEAT = 100;
const NO_MESSAGES = 404;
const EXPIRED = 408;

/** What a consumer sends: asked for one batch after the other, and watched for silence. */
export class Mailbox implements Disposable {
  readonly #nc: NatsConnection;
  readonly #subject: string;
  readonly #inbox = createInbox(INBOX_PREFIX);
  readonly #owned = new DisposableStack();
  #messages: Msg[] = [];
  #outstanding = 0;
  #heardMs = performance.now();
  #wake = Promise.withResolvers<void>();
  #failure: Error | undefined;

  /** @param behind whether there is something that should have come */
  constructor(nc: NatsConnection, subject: string, behind: () => Promise<boolean>, signal: AbortSignal) {
    this.#nc = nc;
    this.#subject = subject;
    const subscription = nc.subscribe(this.#inbox, { callback: (error, message) => (error ? this.fail(error) : this.#heard(message)) });
    this.#owned.defer(() => subscription.unsubscribe());
    const silence = setInterval(() => {
      if (performance.now() - this.#heardMs > SILENCE_MS) this.fail(new Error("the consumer is silent"));
    }, HEARTBEAT_MS);
    this.#owned.defer(() => clearInterval(silence));
    this.#owned.defer(watchIdle(behind, (why) => this.fail(why)));
    const stop = (): void => this.fail(new Error("stopped"));
    signal.addEventListener("abort", stop, { once: true });
    this.#owned.defer(() => signal.removeEventListener("abort", stop));
    if (signal.aborted) stop();
    this.#ask();
  }

  /** Everything that came since the last time, at least one message. @throws when the consumer is lost, or the signal aborts */
  async take(): Promise<Msg[]> {
    while (this.#messages.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#wake.promise;
    }
    if (this.#outstanding === 0 && this.#failure === undefined) this.#ask();
    const messages = this.#messages;
    this.#messages = [];
    return messages;
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  #ask(): void {
    this.#outstanding = BATCH_MESSAGES;
    const request = { batch: BATCH_MESSAGES, expires: nanos(EXPIRES_MS), idle_heartbeat: nanos(HEARTBEAT_MS) };
    this.#nc.publish(this.#subject, JSON.stringify(request), { reply: this.#inbox });
  }

  #heard(message: Msg): void {
    this.#heardMs = performance.now();
    const code = message.headers?.code ?? 0;
    if (code === HEARTBEAT) return;
    if (code === EXPIRED || code === NO_MESSAGES) this.#ask();
    else if (code !== 0) this.fail(new Error(`the consumer answered ${code} ${message.headers?.description ?? ""}`));
    else {
      this.#outstanding--;
      this.#messages.push(message);
      this.#next();
    }
  }

  /** The next take says so, when everything that came was taken. */
  fail(why: Error): void {
    this.#failure ??= why;
    this.#next();
  }

  #next(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}

/** Looks now and then, twice before it says anything: a replica may lag. Returns what ends it. */
function watchIdle(behind: () => Promise<boolean>, fail: (why: Error) => void): () => void {
  let suspected = false;
  const timer = setInterval(() => {
    behind().then(
      (now) => {
        if (now && suspected) fail(new Error("the consumer lags behind its stream"));
        suspected = now;
      },
      // Whoever cannot be asked now is asked again; a consumer that is lost falls silent.
      () => undefined,
    );
  }, IDLE_CHECK_MS);
  return () => clearInterval(timer);
}

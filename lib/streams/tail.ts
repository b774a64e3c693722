// Following one tenant's messages in the LOGS streams as they are stored.
//
// Promises: only what a stream holds is given, of one subject, in the stream's order, each message once; a fault of NATS or a
// restart of it leaves the place where reading stands, and reading goes on from there; nothing is kept on the server (direct
// batch get with a subject, NATS ADR-31: no consumer, so there is none to lose or to leave behind); memory is one short read.
//
// A core subscription is the hint that something is coming, one for all followers of a tenant. It comes before the message is
// stored, and may be missed: the stream is looked at a little later, and again every few seconds.

import type { NatsConnection } from "nats";
import { messageOf } from "../base/errors.ts";
import { backoffMs, sleep } from "../base/loop.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { STREAMS, SUBJECTS } from "../event/envelope.ts";
import { insistent } from "./insist.ts";
import { collect, streamState } from "./read.ts";

export type Followed =
  | {
      readonly kind: "message";
      readonly message: StoredMessage;
      /** How long those who follow have worked on messages since they last had all that could be read, milliseconds. */
      readonly takenMs: number;
    }
  /** The stream can be read again, and holds messages up to that one. */
  | { readonly kind: "resumed"; readonly lastSeq: number }
  /** The stream was made again: what follows is counted from 1. */
  | { readonly kind: "made_again"; readonly created: string };

export interface ShardHead {
  /** Changes when the stream was deleted and made again. */
  readonly created: string;
  readonly firstSeq: number;
  readonly lastSeq: number;
}

const BOUNDS = { messagesMax: 64, bytesMax: 512 * 1024 };
const POLL_MS = 2_000;
/** A hint comes before the message is stored, and replicated: it is looked for this long after it. */
const HINT_DELAYS_MS = [1, 4, 15, 40, 100, 250, 600] as const;
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2_000;

export interface TailSource {
  /** Where each shard's stream is now, by shard. @throws NatsError */
  heads(): Promise<ShardHead[]>;
  /** The first sequence of a shard that was stored at a time or later; undefined when none is. @throws NatsError */
  seqAt(shard: number, storedMs: number): Promise<number | undefined>;
  /**
   * A tenant's messages of a shard from sequence `from` on, until the signal aborts. Never throws.
   * @param created of the stream that `from` counts in
   * @param onFault told when the stream cannot be read, and undefined when it can be again
   */
  follow(
    tenant: string,
    shard: number,
    created: string,
    from: number,
    onFault: (why: string | undefined) => void,
    signal: AbortSignal,
  ): AsyncGenerator<Followed, void, undefined>;
}

/** @param nc throws while there is no connection yet */
export function tailSource(nc: () => NatsConnection, shards: number): TailSource {
  const hints = new Hints(nc);
  return {
    heads: () => Promise.all(Array.from({ length: shards }, (_, shard) => stateOf(nc, shard))),
    async seqAt(shard, storedMs) {
      const request = JSON.stringify({ start_time: new Date(storedMs).toISOString(), batch: 1 });
      return (await directGet(nc, shard, request)).messages[0]?.seq;
    },
    follow: (...all) => new Follower(nc, hints, ...all).run(),
  };
}

const stateOf = (nc: () => NatsConnection, shard: number) => insistent((timeoutMs) => streamState(nc(), STREAMS.logs(shard), timeoutMs));

const directGet = (nc: () => NatsConnection, shard: number, request: string) =>
  insistent((timeoutMs) => collect(nc(), `$JS.API.DIRECT.GET.${STREAMS.logs(shard)}`, request, timeoutMs));

class Follower {
  readonly #nc: () => NatsConnection;
  readonly #hints: Hints;
  readonly #tenant: string;
  readonly #shard: number;
  readonly #onFault: (why: string | undefined) => void;
  readonly #signal: AbortSignal;
  #created: string;
  #next: number;
  #takenMs = 0;

  constructor(
    nc: () => NatsConnection,
    hints: Hints,
    ...[tenant, shard, created, from, onFault, signal]: Parameters<TailSource["follow"]>
  ) {
    [this.#nc, this.#hints, this.#tenant, this.#shard] = [nc, hints, tenant, shard];
    [this.#created, this.#next, this.#onFault, this.#signal] = [created, from, onFault, signal];
  }

  async *run(): AsyncGenerator<Followed, void, undefined> {
    const signal = this.#signal;
    using hint = this.#hints.of(this.#tenant, this.#shard, signal);
    /** Messages that were hinted at and did not come yet. */
    let owed = 0;
    for (let faults = 0, looks = 0; !signal.aborted; ) {
      const hints = hint.take();
      owed += hints;
      if (hints > 0) looks = 0;
      try {
        // What was hinted at does not come, or the server was away: the stream may be another one.
        if ((owed > 0 && looks === HINT_DELAYS_MS.length) || faults > 0) yield* this.#changes(faults > 0);
        const { messages, pending } = await this.#read();
        if (faults > 0) this.#onFault(undefined);
        faults = 0;
        yield* this.#give(messages, pending);
        if (signal.aborted) return;
        owed = Math.max(0, owed - messages.length);
        if (messages.length > 0) looks = 0;
        if (pending > 0 || hint.given) continue;
      } catch (error) {
        this.#onFault(messageOf(error));
        await sleep(backoffMs(faults++, RETRY_FIRST_MS, RETRY_MAX_MS), signal);
        continue;
      }
      const delay = owed > 0 ? HINT_DELAYS_MS[looks++] : undefined;
      if (delay === undefined) owed = 0;
      await hint.wait(delay ?? POLL_MS);
    }
  }

  async *#changes(faulted: boolean): AsyncGenerator<Followed, void, undefined> {
    const { created, lastSeq } = await stateOf(this.#nc, this.#shard);
    if (created !== this.#created) {
      this.#created = created;
      this.#next = 1;
      yield { kind: "made_again", created };
    }
    if (faulted) yield { kind: "resumed", lastSeq };
  }

  async *#give(messages: readonly StoredMessage[], pending: number): AsyncGenerator<Followed, void, undefined> {
    const [beganMs, beforeMs] = [performance.now(), this.#takenMs];
    const sinceMs = (): number => performance.now() - beganMs;
    for (const message of messages) {
      this.#next = message.seq + 1;
      yield { kind: "message", message, takenMs: beforeMs + sinceMs() };
      if (this.#signal.aborted) return;
    }
    this.#takenMs = pending > 0 ? beforeMs + sinceMs() : sinceMs();
  }

  async #read(): Promise<{ messages: StoredMessage[]; pending: number }> {
    const subject = SUBJECTS.logs(this.#shard, this.#tenant);
    const { messagesMax: batch, bytesMax: max_bytes } = BOUNDS;
    const request = JSON.stringify({ seq: this.#next, next_by_subj: subject, batch, max_bytes });
    const answer = await directGet(this.#nc, this.#shard, request);
    // Each message names the one before it: a hole in the answer ends it there.
    const hole = answer.messages.findIndex((message, i, all) => i > 0 && Number(message.header("Nats-Last-Sequence")) !== all[i - 1]!.seq);
    if (hole < 0) return answer;
    return { messages: answer.messages.slice(0, hole), pending: answer.pending + answer.messages.length - hole };
  }
}

interface Hint extends Disposable {
  /** Whether something was hinted at since the last `take`. */
  readonly given: boolean;
  /** How many messages were. */
  take(): number;
  /** Until something is hinted at, or that many milliseconds. */
  wait(ms: number): Promise<void>;
}

/** What is coming for a tenant: one subscription a tenant, as long as anyone follows it. */
class Hints {
  readonly #nc: () => NatsConnection;
  readonly #tenants = new Map<string, { readonly wakers: Set<(shard: string) => void>; readonly stop: () => void }>();

  constructor(nc: () => NatsConnection) {
    this.#nc = nc;
  }

  of(tenant: string, shard: number, signal: AbortSignal): Hint {
    const [own, all] = [String(shard), this.#tenants];
    let [count, wake] = [0, new AbortController()];
    const waker = (about: string): void => {
      if (about !== own) return;
      count++;
      wake.abort();
    };
    const stop = (): void => wake.abort();
    signal.addEventListener("abort", stop);
    const { wakers } = this.#subscribed(tenant);
    wakers.add(waker);
    return {
      get given() {
        return count > 0;
      },
      take() {
        const was = count;
        count = 0;
        return was;
      },
      async wait(ms) {
        wake = new AbortController();
        if (count === 0 && !signal.aborted) await sleep(ms, wake.signal);
      },
      [Symbol.dispose]() {
        signal.removeEventListener("abort", stop);
        wakers.delete(waker);
        if (wakers.size > 0 || all.get(tenant)?.wakers !== wakers) return;
        all.get(tenant)!.stop();
        all.delete(tenant);
      },
    };
  }

  #subscribed(tenant: string): { readonly wakers: Set<(shard: string) => void> } {
    const known = this.#tenants.get(tenant);
    if (known !== undefined) return known;
    const wakers = new Set<(shard: string) => void>();
    const subscription = this.#nc().subscribe(`logs.*.${tenant}`, {
      callback(error, message) {
        if (error !== null) return;
        const shard = message.subject.split(".")[1]!;
        for (const waker of wakers) waker(shard);
      },
    });
    const made = { wakers, stop: () => subscription.unsubscribe() };
    this.#tenants.set(tenant, made);
    return made;
  }
}

// The releaser: takes deferred messages to where they belong when their tenant's quota has room again.
//
// Promises: each tenant's messages are released oldest first and each exactly once, whoever dies when; a message that waited
// longer than the grace is removed and leaves a gap record; nothing is removed before what replaces it is acknowledged.
//
// One process at a time does it, under a lease. What it is about to do is in the register before it does it (the intent): the
// next one looks which of the intent's messages are in their LOGS stream already (`already.ts`), and does the rest.

import type { Clock } from "../base/clock.ts";
import { DAY_MS } from "../base/clock.ts";
import { sleep } from "../base/loop.ts";
import type { Logger } from "../base/telemetry.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS, messageId, readEnvelope } from "../event/envelope.ts";
import { newBatchId, shardOf } from "../event/ids.ts";
import type { Claim, Leased, LeaseOptions } from "../streams/lease.ts";
import { acquire, LeaseLost } from "../streams/lease.ts";
import { partName } from "../streams/stored.ts";
import type { AlreadyPorts, Waiting } from "./already.ts";
import { alreadyStored, isSameCall, waitingOf } from "./already.ts";
import type { Gap } from "./gap.ts";
import { gapMessage } from "./gap.ts";
import { observedNow } from "./recode.ts";

export interface Releasing extends Leased {
  readonly intent: Intent | null;
}

/** What is being done to a tenant's messages, by their sequences in DEFERRED. */
interface Intent {
  readonly tenant: string;
  /** The oldest ones there are, in order. */
  readonly seqs: readonly number[];
  /** The last sequence of each LOGS stream it concerns, by shard, before anything of it was done; none in intents of earlier versions. */
  readonly after?: Readonly<Record<string, number>>;
  /** Undefined when they are released; else what their end leaves. */
  readonly gap?: Gap;
}

export const RELEASE_KEY = "deferred";
export const NOTHING_TO_DO: Releasing = { owner: "", writes: 0, intent: null };

export interface Room {
  readonly records: number;
  readonly bytes: number;
}

/** The quotas, as the meter keeps them. */
export interface ReleaseQuota {
  /** What a tenant may still have stored now; also Infinity. Undefined while it is not known: nothing is released or expires then. */
  left(tenant: string): Room | undefined;
  /** Told of each message that JetStream acknowledged for the first time; `left` is less by it from then on. */
  stored(message: { tenant: string; shard: number; seq: number; records: number; size: number }): void;
}

interface Outgoing {
  readonly shard: number;
  readonly tenant: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly payload: Uint8Array;
}

export interface ReleasePorts extends AlreadyPorts {
  readonly lease: Omit<LeaseOptions<Releasing>, "clock">;
  readonly clock: Clock;
  readonly shards: number;
  /** Messages that wait, by tenant. */
  byTenant(): Promise<ReadonlyMap<string, number>>;
  /** A tenant's first message at or behind a sequence of DEFERRED. */
  next(tenant: string, seq: number): Promise<StoredMessage | undefined>;
  at(seq: number): Promise<StoredMessage | undefined>;
  /** Removes a tenant's messages up to a sequence. */
  removeUpTo(tenant: string, seq: number): Promise<void>;
  append(message: Outgoing): Promise<{ stream: string; seq: number; duplicate: boolean }>;
  /** A message of a LOGS stream; undefined when it is gone. */
  storedAt(stream: string, seq: number): Promise<StoredMessage | undefined>;
  /** The last sequence of a shard's LOGS stream. */
  lastSeq(shard: number): Promise<number>;
  readonly quota: ReleaseQuota;
  readonly failpoint: (step: ReleaseStep) => void;
  readonly events: ReleaseEvents;
  readonly log: Logger;
}

export type ReleaseStep = "intended" | "published" | "removed" | "gap" | "done";

export interface ReleaseEvents {
  released(records: number): void;
  expired(gap: Gap): void;
}

/** Of one intent: each is a message of at most 512 KiB, and all are in memory at once. */
const INTENT_MESSAGES_MAX = 32;
const INTENT_BYTES_MAX = 8 * 2 ** 20;
/** Of one that removes what has expired; headers count, payloads are let go. */
const EXPIRED_MESSAGES_MAX = 200;
const IDLE_MS = 250;

/** Releases and expires until the signal aborts. @throws the ports' errors; begun again, it goes on where it was */
export async function runReleases(ports: ReleasePorts, graceMs: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await using claim = await acquire({ ...ports.lease, clock: ports.clock }, async () => NOTHING_TO_DO, signal);
      if (claim === undefined) return;
      await new Releaser(ports, graceMs, claim).run(AbortSignal.any([signal, claim.lost]));
      claim.lost.throwIfAborted();
    } catch (error) {
      if (!(error instanceof LeaseLost)) throw error;
      ports.log.info("deferred records have another releaser now");
    }
  }
}

class Releaser {
  readonly #ports: ReleasePorts;
  readonly #graceMs: number;
  readonly #claim: Claim<Releasing>;

  constructor(ports: ReleasePorts, graceMs: number, claim: Claim<Releasing>) {
    this.#ports = ports;
    this.#graceMs = graceMs;
    this.#claim = claim;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { intent } = this.#claim.value;
    if (intent !== null) await this.#finish(intent, undefined);
    while (!signal.aborted) {
      let worked = false;
      for (const tenant of (await this.#ports.byTenant()).keys()) {
        if (signal.aborted) return;
        worked = (await this.#step(tenant)) || worked;
      }
      if (!worked) await sleep(IDLE_MS, signal);
    }
  }

  /** Some messages of one tenant. @returns whether there was anything to do */
  async #step(tenant: string): Promise<boolean> {
    const room = this.#ports.quota.left(tenant);
    if (room === undefined) return false;
    const messages = await this.#releasable(tenant, room);
    const begun = messages.length > 0 ? { tenant, seqs: messages.map(({ seq }) => seq) } : await this.#expired(tenant);
    if (begun === undefined) return false;
    const waiting = messages.map(waitingOf);
    const shards = begun.gap === undefined ? waiting.map(({ shard }) => shard) : [begun.gap.shard];
    const intent = { ...begun, after: await this.#lastSeqs(shards) };
    await this.#claim.change({ intent });
    this.#ports.failpoint("intended");
    await this.#finish(intent, waiting);
    return true;
  }

  async #lastSeqs(shards: readonly number[]): Promise<Record<string, number>> {
    const each = [...new Set(shards)].map(async (shard) => [shard, await this.#ports.lastSeq(shard)] as const);
    return Object.fromEntries(await Promise.all(each));
  }

  async #releasable(tenant: string, room: Room): Promise<StoredMessage[]> {
    let { records, bytes } = room;
    const messages: StoredMessage[] = [];
    let held = 0;
    // As at the gateway: a quota with anything left takes a whole message.
    for (let seq = 1; records > 0 && bytes > 0 && messages.length < INTENT_MESSAGES_MAX && held < INTENT_BYTES_MAX; ) {
      const message = await this.#ports.next(tenant, seq);
      if (message === undefined) break;
      const { size, records: count } = weightOf(message);
      messages.push(message);
      seq = message.seq + 1;
      records -= count;
      bytes -= size;
      held += message.payload.length;
    }
    return messages;
  }

  async #expired(tenant: string): Promise<Intent | undefined> {
    const { clock, shards } = this.#ports;
    const nowMs = clock.now();
    const [seqs, batches] = [[] as number[], new Set<string>()];
    let [records, bytes, fromMs, toMs] = [0, 0, Number.POSITIVE_INFINITY, 0];
    for (let seq = 1; seqs.length < EXPIRED_MESSAGES_MAX; ) {
      const message = await this.#ports.next(tenant, seq);
      if (message === undefined || nowMs - message.storedMs < this.#graceMs) break;
      const weight = weightOf(message);
      seqs.push(message.seq);
      batches.add(message.header(HEADERS.batch));
      seq = message.seq + 1;
      records += weight.records;
      bytes += weight.size;
      fromMs = Math.min(fromMs, message.storedMs);
      toMs = Math.max(toMs, message.storedMs);
    }
    if (seqs.length === 0) return undefined;
    const batch = newBatchId(nowMs);
    const reason = `deferred when they came, and the quota had no room for them within ${words(this.#graceMs)} (RELOG_DEFER_GRACE)`;
    const gap: Gap = {
      ...{ tenant, batch, shard: shardOf(batch, shards), cause: "grace", reason, records, bytes },
      ...{ calls: batches.size, fromMs: Math.floor(fromMs), toMs: Math.floor(toMs) },
    };
    return { tenant, seqs, gap };
  }

  /** @param held the messages of an intent that is new; undefined when some of it may be done already */
  async #finish(intent: Intent, held: readonly Waiting[] | undefined): Promise<void> {
    const { failpoint, removeUpTo, clock, dedupeWindowMs } = this.#ports;
    const { tenant, gap } = intent;
    const after = held === undefined ? (intent.after ?? {}) : undefined;
    if (gap !== undefined) await this.#leaveGap(gap, after);
    else {
      const waiting = held ?? (await this.#waitingOf(intent));
      const look = () => alreadyStored(this.#ports, tenant, waiting, after, clock.now(), this.#claim.lost);
      let [done, lookedMs] = [await look(), clock.monotonicMs()];
      for (const one of waiting) {
        // Appends that took long: what was left to the streams' window may be older than it by now.
        if (clock.monotonicMs() - lookedMs > dedupeWindowMs / 4) [done, lookedMs] = [await look(), clock.monotonicMs()];
        if (!done.has(one.message.seq)) await this.#release(tenant, one);
        failpoint("published");
      }
    }
    await removeUpTo(intent.tenant, intent.seqs.at(-1)!);
    failpoint("removed");
    await this.#claim.change({ intent: null });
    failpoint("done");
  }

  /** What DEFERRED still holds of an intent. */
  async #waitingOf({ tenant, seqs }: Intent): Promise<Waiting[]> {
    const waiting: Waiting[] = [];
    for (const seq of seqs) {
      const message = await this.#ports.at(seq);
      // Released and removed before, or purged with its tenant; in a stream that was made again another one has its sequence.
      if (message?.subject.split(".")[2] === tenant) waiting.push(waitingOf(message));
    }
    return waiting;
  }

  async #release(tenant: string, { message, shard, batch, part }: Waiting): Promise<void> {
    const { clock, append, storedAt, dedupeWindowMs, events, log } = this.#ports;
    const recoded = await observedNow(message, clock.now()).catch((error: unknown) => {
      log.error({ seq: message.seq, tenant, err: error }, "a deferred message cannot be decoded; it is passed on as it is");
      return { headers: message.pairs(), payload: message.payload };
    });
    this.#fence();
    let stored = await append({ shard, tenant, ...recoded });
    const other = stored.duplicate ? await storedAt(stored.stream, stored.seq) : undefined;
    if (stored.duplicate && other?.header(HEADERS.batch) !== batch) {
      if (other !== undefined && isSameCall(message, other, dedupeWindowMs)) return;
      // The idempotency key was used again after its window: another call, which has an answer of its own.
      const headers = recoded.headers.map(([name, value]) => [name, name === HEADERS.messageId ? messageId(tenant, batch, part) : value]);
      this.#fence();
      stored = await append({ shard, tenant, headers: headers as [string, string][], payload: recoded.payload });
    }
    const { records, size } = weightOf(message);
    if (!stored.duplicate) this.#ports.quota.stored({ tenant, shard, seq: stored.seq, records, size });
    events.released(records);
  }

  /** @param after as in the intent, when the gap's record may be stored already */
  async #leaveGap(gap: Gap, after: Readonly<Record<string, number>> | undefined): Promise<void> {
    const { clock, append, storedBehind, quota, events } = this.#ports;
    const { shard, tenant, batch } = gap;
    if (after !== undefined) {
      const stored = await storedBehind(shard, tenant, new Set([partName(batch, 1)]), after[shard] ?? 0, this.#claim.lost);
      if (stored.size > 0) return;
    }
    const { message, records, size } = await gapMessage(gap, clock.now());
    this.#fence();
    const { seq, duplicate } = await append(message);
    if (!duplicate) quota.stored({ tenant, shard, seq, records, size });
    events.expired(gap);
    this.#ports.failpoint("gap");
  }

  /** One that slept past its lease must not send: the next one may have sent the same long ago. */
  #fence(): void {
    this.#claim.lost.throwIfAborted();
    if (this.#ports.clock.monotonicMs() >= this.#claim.deadline) throw new LeaseLost("the lease of the releaser has run out");
  }
}

function weightOf(message: StoredMessage): { records: number; size: number } {
  const envelope = readEnvelope(message.header);
  return "fault" in envelope ? { records: 0, size: 0 } : { records: envelope.records, size: envelope.size };
}

function words(ms: number): string {
  return ms >= DAY_MS && ms % DAY_MS === 0 ? `${ms / DAY_MS} days` : `${Math.round(ms / 1_000)} seconds`;
}

// Counting what is dropped, durably, and closing the counts into gap records.
//
// Promises: a drop is answered after its count is in a register of the KV bucket; a register is one gap, becomes one record of
// the tenant's log under an id chosen before, and is removed afterwards: no gap is lost or there twice, whoever dies when.
// Memory is a few numbers a tenant that drops, and a write in COMMIT_MS for all of its calls together.
//
// A register is changed by the process that made it, by compare-and-set. Closing it is a compare-and-set too, which anyone may
// make of one that has not changed for ABANDONED_MS by its own clock; after it nobody adds. The process whose addition meets
// it begins another gap.

import type { Clock } from "../base/clock.ts";
import { messageOf, RelogError } from "../base/errors.ts";
import { sleep } from "../base/loop.ts";
import { newBatchId, shardOf } from "../event/ids.ts";
import type { Register } from "../streams/cas.ts";
import type { Gap } from "./gap.ts";
import { gapMessage } from "./gap.ts";

/** What a register holds. */
export interface OpenGap extends Gap {
  /** When it was closed, milliseconds since the epoch; null while its process adds to it. */
  readonly closedMs: number | null;
  /** The last sequence of its LOGS stream before it was closed; none in those of earlier versions. */
  readonly after?: number;
}

export interface GapPorts {
  register(key: string): Pick<Register<OpenGap>, "read" | "write">;
  /** Keys of all registers. */
  keys(): Promise<readonly string[]>;
  forget(key: string): Promise<void>;
  append(message: Awaited<ReturnType<typeof gapMessage>>["message"]): Promise<{ seq: number; duplicate: boolean }>;
  /** The last sequence of a shard's LOGS stream. */
  lastSeq(shard: number): Promise<number>;
  /** Whether the stream holds a batch's message behind a sequence. */
  isStored(shard: number, tenant: string, batch: string, seq: number): Promise<boolean>;
  /** Told of a gap record that was stored, as usage counts it. */
  stored(message: { tenant: string; shard: number; seq: number; records: number; size: number }): void;
  readonly shards: number;
  readonly clock: Clock;
}

export interface Drop {
  readonly tenant: string;
  readonly reason: string;
  readonly records: number;
  readonly size: number;
}

/** Where a drop is counted. */
export interface Dropped {
  /** The batch that the gap record will be. */
  readonly id: string;
  readonly seq: number;
}

const PREFIX = "gap";
export const gapKey = (tenant: string, batch: string): string => `${PREFIX}.${tenant}.${batch}`;
export const GAP_KEYS = `${PREFIX}.>`;

/** Calls of this long are counted by one write. */
const COMMIT_MS = 200;
/** A gap with no further drop for this long is over. */
const QUIET_MS = 10_000;
const ABANDONED_MS = 120_000;
const TICK_MS = 1_000;
const SWEEP_MS = 15_000;

interface Pending {
  records: number;
  bytes: number;
  calls: number;
  readonly fromMs: number;
  readonly counted: PromiseWithResolvers<Dropped>;
}

/** The gap that one tenant has for one reason now. */
class Counter {
  readonly #ports: GapPorts;
  readonly #tenant: string;
  readonly #reason: string;
  readonly #waits: typeof sleep;
  #gap: OpenGap | undefined;
  #revision = 0;
  #openedMs = 0;
  #lastMs: number;
  #pending: Pending | undefined;
  #writing: Promise<void> | undefined;

  constructor(ports: GapPorts, tenant: string, reason: string, waits: typeof sleep) {
    this.#ports = ports;
    this.#tenant = tenant;
    this.#reason = reason;
    this.#waits = waits;
    this.#lastMs = ports.clock.monotonicMs();
  }

  get idle(): boolean {
    return this.#gap === undefined && this.#pending === undefined && this.#writing === undefined;
  }

  isOver(intervalMs: number): boolean {
    const nowMs = this.#ports.clock.monotonicMs();
    return this.#gap === undefined || nowMs - this.#lastMs >= QUIET_MS || nowMs - this.#openedMs >= intervalMs;
  }

  add({ records, size }: Drop): Promise<Dropped> {
    this.#lastMs = this.#ports.clock.monotonicMs();
    if (this.#pending === undefined) {
      this.#pending = { records: 0, bytes: 0, calls: 0, fromMs: this.#ports.clock.now(), counted: Promise.withResolvers() };
      this.#writing ??= this.#commit();
    }
    this.#pending.records += records;
    this.#pending.bytes += size;
    this.#pending.calls++;
    return this.#pending.counted.promise;
  }

  /** Writes what is pending, again and again until nothing is. Never rejects. */
  async #commit(): Promise<void> {
    while (this.#pending !== undefined) {
      await this.#waits(COMMIT_MS);
      const pending = this.#pending;
      this.#pending = undefined;
      await this.#write(pending).then(pending.counted.resolve, (cause: unknown) => {
        const text = `what a quota drops cannot be counted now: ${messageOf(cause)}`;
        pending.counted.reject(new RelogError("stream_unavailable", text, { cause, retryAfterS: 2 }));
      });
    }
    this.#writing = undefined;
  }

  async #write(pending: Pending): Promise<Dropped> {
    for (;;) {
      const { value, revision } = this.#grown(pending);
      // If its outcome is unknown, this gap is left to whoever closes what is abandoned, and the next drop begins another.
      this.#gap = undefined;
      const written = await this.#ports.register(gapKey(value.tenant, value.batch)).write(value, revision);
      if (written === undefined) continue;
      if (revision === 0) this.#openedMs = this.#ports.clock.monotonicMs();
      this.#gap = value;
      this.#revision = written;
      return { id: value.batch, seq: written };
    }
  }

  #grown({ records, bytes, calls, fromMs }: Pending): { value: OpenGap; revision: number } {
    const nowMs = this.#ports.clock.now();
    const gap = this.#gap;
    if (gap !== undefined) {
      const sums = { records: gap.records + records, bytes: gap.bytes + bytes, calls: gap.calls + calls };
      return { value: { ...gap, ...sums, toMs: Math.max(nowMs, gap.toMs) }, revision: this.#revision };
    }
    const batch = newBatchId(nowMs);
    const identity = {
      tenant: this.#tenant,
      batch,
      shard: shardOf(batch, this.#ports.shards),
      cause: "quota",
      reason: this.#reason,
    } as const;
    return { value: { ...identity, records, bytes, calls, fromMs, toMs: nowMs, closedMs: null }, revision: 0 };
  }

  /** Waits for the write under way, if there is one. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  /** Lets go of the gap that there is, for the next drop to begin another. Returns its register's key; undefined also while it is being written. */
  release(): string | undefined {
    const gap = this.#gap;
    this.#gap = undefined;
    return gap === undefined ? undefined : gapKey(gap.tenant, gap.batch);
  }
}

/** @returns whether the gap's record is stored and its register gone @throws the ports' errors; trying again is harmless */
export async function closeGap(ports: GapPorts, key: string, revision?: number): Promise<boolean> {
  const seat = ports.register(key);
  const entry = await seat.read();
  if (entry === undefined) return true;
  if (revision !== undefined && entry.revision !== revision) return false;
  let gap = entry.value;
  if (gap.closedMs === null) {
    gap = { ...gap, closedMs: ports.clock.now(), after: await ports.lastSeq(gap.shard) };
    if ((await seat.write(gap, entry.revision)) === undefined) return false;
  } else if (await ports.isStored(gap.shard, gap.tenant, gap.batch, gap.after ?? 0)) {
    await ports.forget(key);
    return true;
  }
  const { message, records, size } = await gapMessage(gap, ports.clock.now());
  const { seq, duplicate } = await ports.append(message);
  if (!duplicate) ports.stored({ tenant: gap.tenant, shard: gap.shard, seq, records, size });
  await ports.forget(key);
  return true;
}

/** What one process drops. */
export class Gaps {
  readonly #ports: GapPorts;
  readonly #intervalMs: number;
  readonly #waits: typeof sleep;
  readonly #counters = new Map<string, Counter>();
  /** Registers that are ours to close. */
  readonly #closing = new Set<string>();

  /** @param intervalMs how long one gap may grow before it is written */
  constructor(ports: GapPorts, intervalMs: number, waits = sleep) {
    this.#ports = ports;
    this.#intervalMs = intervalMs;
    this.#waits = waits;
  }

  /** Counts a drop; resolves when that is durable. @throws RelogError stream_unavailable; it may be counted all the same */
  async add(drop: Drop): Promise<Dropped> {
    const key = `${drop.tenant} ${drop.reason}`;
    let counter = this.#counters.get(key);
    if (counter === undefined) {
      counter = new Counter(this.#ports, drop.tenant, drop.reason, this.#waits);
      this.#counters.set(key, counter);
    }
    return await counter.add(drop);
  }

  /** Writes the gaps that are over, or all. @throws a port's error; what is not written is tried again by the next call */
  async write(all = false): Promise<void> {
    for (const [key, counter] of this.#counters) {
      if (all) await counter.settled();
      const register = all || counter.isOver(this.#intervalMs) ? counter.release() : undefined;
      if (register !== undefined) this.#closing.add(register);
      if (counter.idle && this.#counters.get(key) === counter) this.#counters.delete(key);
    }
    const results = await Promise.allSettled([...this.#closing].map((key) => this.#close(key)));
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  async #close(key: string): Promise<void> {
    if (await closeGap(this.#ports, key)) this.#closing.delete(key);
  }

  /** Writes gaps as they end, until the signal aborts. @param report told what fails, and undefined when nothing does */
  async follow(report: (why: string | undefined) => void, signal: AbortSignal): Promise<void> {
    for (; !signal.aborted; await sleep(TICK_MS, signal)) await reporting(report, () => this.write());
  }
}

/** Closes the gaps that processes left behind, until the signal aborts. Anyone may, and several at once. */
export async function sweepGaps(ports: GapPorts, report: (why: string | undefined) => void, signal: AbortSignal): Promise<void> {
  const seen = new Map<string, { revision: number; sinceMs: number }>();
  for (; !signal.aborted; await sleep(SWEEP_MS, signal)) await reporting(report, () => sweepOnce(ports, seen));
}

/** @param seen what this process saw before: register -> its revision, and since when */
export async function sweepOnce(
  ports: GapPorts,
  seen: Map<string, { revision: number; sinceMs: number }>,
  abandonedMs = ABANDONED_MS,
): Promise<void> {
  const keys = new Set(await ports.keys());
  for (const key of seen.keys()) if (!keys.has(key)) seen.delete(key);
  for (const key of keys) {
    const entry = await ports.register(key).read();
    if (entry === undefined) continue;
    const nowMs = ports.clock.monotonicMs();
    const before = seen.get(key);
    if (before?.revision !== entry.revision) seen.set(key, { revision: entry.revision, sinceMs: nowMs });
    else if (nowMs - before.sinceMs >= abandonedMs && (await closeGap(ports, key, entry.revision))) seen.delete(key);
  }
}

async function reporting(report: (why: string | undefined) => void, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    report(undefined);
  } catch (error) {
    report(messageOf(error));
  }
}

// Snapshots of the meter: what makes a restart cheap, and lets usage outlive the streams.
//
// Promises: written by whoever holds the lease, by compare-and-set, and never over one that is further; only what changed, every
// few seconds, and no more bytes a second than BYTES_PER_S. A snapshot says what was folded, so it is never ahead of its stream.

import { sleep } from "../base/loop.ts";
import type { Register } from "../streams/cas.ts";
import type { Meter } from "./meter.ts";
import type { Snapshot } from "./snapshot.ts";

const PAUSE_MS = 5_000;
const BYTES_PER_S = 512 * 2 ** 10;
/** Below the largest payload of the servers (ops/nats/limits.conf): 50,000 tenants fit, also with the longest names and numbers. */
export const SNAPSHOT_BYTES_MAX = 7 * 2 ** 20;

/** As it is written: no two values are equal. */
export interface KeptSnapshot extends Snapshot {
  readonly by: string;
  readonly writes: number;
}

export type SnapshotRegister = Pick<Register<KeptSnapshot>, "read" | "write">;

/** Why a shard's snapshot is not written; undefined when it is. */
export type OnSnapshot = (shard: number, why: string | undefined) => void;

export class Keeper {
  readonly #meter: Meter;
  readonly #registers: readonly SnapshotRegister[];
  readonly #by: string;
  readonly #on: OnSnapshot;
  /** Of each shard, what the fold was when it was written last. */
  readonly #written: (number | undefined)[] = [];
  #writes = 0;

  /** @param registers one a shard @param by unlike any other process's */
  constructor(meter: Meter, registers: readonly SnapshotRegister[], by: string, on: OnSnapshot) {
    this.#meter = meter;
    this.#registers = registers;
    this.#by = by;
    this.#on = on;
  }

  /** Writes what changed since the last time. Returns the bytes. @throws what the registers throw */
  async write(): Promise<number> {
    let bytes = 0;
    for (const [shard, register] of this.#registers.entries()) {
      const { changes } = this.#meter.position(shard);
      if (this.#written[shard] === changes) continue;
      const size = await this.#writeOne(shard, register);
      if (size === undefined) continue;
      bytes += size;
      this.#written[shard] = changes;
    }
    return bytes;
  }

  /** Writes again and again until the signal aborts, and then once more. @throws what `write` throws */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const bytes = await this.write();
      await sleep(Math.max(PAUSE_MS, (bytes / BYTES_PER_S) * 1_000), signal);
    }
    await this.write();
  }

  async #writeOne(shard: number, register: SnapshotRegister): Promise<number | undefined> {
    const kept = await register.read();
    const now = this.#meter.snapshot(shard);
    if (now === undefined || (kept !== undefined && isFurther(kept.value, now))) return undefined;
    const value: KeptSnapshot = { ...now, by: this.#by, writes: ++this.#writes };
    const bytes = Buffer.byteLength(JSON.stringify(value));
    if (bytes > SNAPSHOT_BYTES_MAX) {
      const tenants = Object.keys(now.tenants).length;
      this.#on(shard, `usage of ${tenants} tenants is ${bytes} bytes, more than a snapshot may have: a restart reads the whole month`);
      return undefined;
    }
    this.#on(shard, undefined);
    return (await register.write(value, kept?.revision ?? 0)) === undefined ? undefined : bytes;
  }
}

/** Whether a snapshot that is there says more than ours: of a stream that was made later, or of more of the same. */
function isFurther(kept: Snapshot, ours: Snapshot): boolean {
  if (kept.stream !== ours.stream) return Date.parse(kept.stream) > Date.parse(ours.stream);
  return kept.next > ours.next;
}

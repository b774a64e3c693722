// The checkpoint of one (site, generation, shard): how far the projection is, what it means to do next, and who does it.
//
// Promises: every change is a compare-and-set on the revision that the owner read, so that only one owner makes progress;
// the lease only decides who tries. An owner that dies is replaced once its checkpoint has not changed for the lease's
// length by the newcomer's own monotonic clock: no two machines' clocks are ever compared.

import type { Clock } from "../base/clock.ts";
import { sleep } from "../base/loop.ts";

/** The durable intent: these sequences go in as one insert under this token. */
export interface Plan {
  readonly from: number;
  readonly to: number;
  readonly token: string;
}

export interface Checkpoint {
  /** The first sequence that is not settled. */
  readonly next: number;
  readonly plan: Plan | null;
  /** Whose turn it is; empty when the last owner left in order. */
  readonly owner: string;
  /** When the stream was created: a stream that was deleted and made again is noticed. */
  readonly stream: string;
  /** Counts writes, so that no two written values are equal. */
  readonly writes: number;
}

/** The signature of lib/streams/cas.ts. */
export interface CheckpointRegister {
  read(): Promise<{ readonly value: Checkpoint; readonly revision: number } | undefined>;
  write(value: Checkpoint, revision: number): Promise<number | undefined>;
}

/** The key of a checkpoint in the bucket. */
export function checkpointKey(site: string, generation: number, shard: number): string {
  return `checkpoint.${site}.${generation}.${shard}`;
}

/** Someone else owns the checkpoint now; the worker stops and waits for its turn. */
export class LeaseLost extends Error {
  override readonly name = "LeaseLost";
}

const POLL_MS = 250;

/** An owned checkpoint. Changes are serialised; the lease is renewed beside them. */
export class Claim implements AsyncDisposable {
  readonly #register: CheckpointRegister;
  readonly #clock: Clock;
  readonly #leaseMs: number;
  #value: Checkpoint;
  #revision: number;
  #tail: Promise<unknown> = Promise.resolve();
  #renewed: number;
  readonly #lost = new AbortController();
  readonly #timer: NodeJS.Timeout;

  constructor(register: CheckpointRegister, clock: Clock, leaseMs: number, value: Checkpoint, revision: number, since: number) {
    this.#register = register;
    this.#clock = clock;
    this.#leaseMs = leaseMs;
    this.#value = value;
    this.#revision = revision;
    this.#renewed = since;
    this.#timer = setInterval(() => {
      if (this.#clock.monotonicMs() - this.#renewed < leaseMs / 3) return;
      // A failed renewal shows in `deadline`, and the next change reports it.
      this.change({}).catch(() => undefined);
    }, leaseMs / 6);
  }

  get value(): Checkpoint {
    return this.#value;
  }

  /** Aborts with LeaseLost when someone else is known to own the checkpoint. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Monotonic milliseconds until which nobody else takes over. */
  get deadline(): number {
    return this.#renewed + this.#leaseMs;
  }

  /** Writes a changed checkpoint. @throws LeaseLost, or the register's error when the outcome is unknown */
  async change(patch: Partial<Pick<Checkpoint, "next" | "plan" | "owner">>): Promise<void> {
    const turn = this.#tail.then(async () => {
      this.#lost.signal.throwIfAborted();
      const started = this.#clock.monotonicMs();
      const value = { ...this.#value, ...patch, writes: this.#value.writes + 1 };
      const revision = await this.#register.write(value, this.#revision);
      if (revision === undefined) {
        const lost = new LeaseLost("another projector changed the checkpoint");
        this.#lost.abort(lost);
        throw lost;
      }
      this.#value = value;
      this.#revision = revision;
      this.#renewed = started;
    });
    this.#tail = turn.catch(() => undefined);
    await turn;
  }

  /**
   * Stops renewing and, if still the owner, lets the next one in at once; but not while a plan is open: an insert of it may
   * still be on its way, and only the lease, which is longer than the insert's fence, says when it will not arrive any more.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#tail;
    if (this.#lost.signal.aborted || this.#value.plan !== null) return;
    await this.change({ owner: "" }).catch(() => undefined);
  }
}

/**
 * Waits until the checkpoint is free and takes it.
 * @param fresh the checkpoint to begin with when there is none
 * @returns undefined when the signal aborts first
 */
export async function acquire(
  register: CheckpointRegister,
  clock: Clock,
  owner: string,
  leaseMs: number,
  fresh: () => Promise<Checkpoint>,
  signal: AbortSignal,
): Promise<Claim | undefined> {
  let seen: { revision: number; since: number } | undefined;
  while (!signal.aborted) {
    const entry = await register.read();
    const now = clock.monotonicMs();
    if (entry === undefined) {
      const value = { ...(await fresh()), owner };
      const revision = await register.write(value, 0);
      if (revision !== undefined) return new Claim(register, clock, leaseMs, value, revision, now);
      continue;
    }
    if (seen?.revision !== entry.revision) seen = { revision: entry.revision, since: now };
    // Our own name is there when a write of ours took effect though its answer was lost.
    const free = entry.value.owner === "" || entry.value.owner === owner || now - seen.since >= leaseMs;
    if (free) {
      const value = { ...entry.value, owner, writes: entry.value.writes + 1 };
      const revision = await register.write(value, entry.revision);
      if (revision !== undefined) return new Claim(register, clock, leaseMs, value, revision, now);
      continue;
    }
    await sleep(Math.min(POLL_MS, leaseMs / 4), signal);
  }
  return undefined;
}

// Waiting, retrying and bounding: the few pieces every loop in the house is made of.

import { setTimeout as delay } from "node:timers/promises";

/** Waits `ms` milliseconds, or shorter when the signal aborts; never throws. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return;
  await delay(ms, undefined, { signal }).catch((error: unknown) => {
    if ((error as Error).name !== "AbortError") throw error;
  });
}

/**
 * Milliseconds to wait before try number `attempt` (0, 1, ...): exponential with full jitter between half and all of it.
 * Bounds a herd of retrying processes. Source: exponential backoff and jitter as in RFC 8961 section 4 and common practice.
 */
export function backoffMs(attempt: number, firstMs: number, maxMs: number, random: () => number = Math.random): number {
  const whole = Math.min(maxMs, firstMs * 2 ** Math.min(attempt, 30));
  return whole / 2 + (whole / 2) * random();
}

/** A bound on something in flight, counted in units of one kind. Over the bound is refused, never queued. */
export class Bound {
  readonly max: number;
  #used = 0;

  constructor(max: number) {
    this.max = max;
  }

  get used(): number {
    return this.#used;
  }

  /**
   * Takes `amount` units; false when that would pass the bound. A single taker larger than the bound gets in when nobody else is.
   * @param held units that the same taker has already
   */
  tryTake(amount: number, held = 0): boolean {
    if (this.#used > held && this.#used + amount > this.max) return false;
    this.#used += amount;
    return true;
  }

  /** Takes `amount` units, whatever the bound. */
  add(amount: number): void {
    this.#used += amount;
  }

  give(amount: number): void {
    this.#used -= amount;
  }
}

/** Polls `probe` until it returns something other than undefined. @throws Error naming `what` after `timeoutMs` milliseconds */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 15_000,
  everyMs = 25,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await sleep(everyMs);
  }
}

/** Does `work`, then again every `ms` milliseconds, until the signal aborts. @throws what `work` throws */
export async function every(ms: number, work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  for (; !signal.aborted; await sleep(ms, signal)) await work();
}

/** Wakes a loop that waits. A ring while nobody waits is heard by the next wait. */
export class Bell {
  #rung = new AbortController();

  ring(): void {
    this.#rung.abort();
  }

  /** Waits for a ring, `ms` milliseconds at most, or until the signal aborts. @returns whether it rang, or the signal aborted */
  async wait(ms: number, signal: AbortSignal): Promise<boolean> {
    const ring = (): void => this.ring();
    signal.addEventListener("abort", ring);
    try {
      await sleep(signal.aborted ? 0 : ms, this.#rung.signal);
      return this.#rung.signal.aborted || signal.aborted;
    } finally {
      signal.removeEventListener("abort", ring);
      this.#rung = new AbortController();
    }
  }
}

// Which tenants have records waiting in DEFERRED, as a gateway knows it.
//
// Promises: what this process deferred is known at once, what others did within a look (LOOK_MS); a fault leaves what was
// known and is a warning; whoever waits for a backlog's end waits a bounded time.

import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Health } from "../base/health.ts";
import { sleep } from "../base/loop.ts";

export const LOOK_MS = 1_000;
/** While somebody waits for the end of a backlog. */
const LOOK_SOON_MS = 50;

export class Backlog {
  readonly #look: () => Promise<ReadonlyMap<string, number>>;
  readonly #clock: Clock;
  #counts: ReadonlyMap<string, number> = new Map();
  /** Calls that this process deferred since the last look began, and while the one before it did: tenant -> how many, roughly. */
  #own = new Map<string, number>();
  #looking: ReadonlyMap<string, number> = new Map();
  #waiting = 0;
  #wanted = Promise.withResolvers<void>();
  #looked = Promise.withResolvers<void>();

  /** @param look messages in DEFERRED by tenant */
  constructor(look: () => Promise<ReadonlyMap<string, number>>, clock: Clock) {
    this.#look = look;
    this.#clock = clock;
  }

  /** Messages of the tenant that wait, as far as is known. */
  count(tenant: string): number {
    const own = (this.#own.get(tenant) ?? 0) + (this.#looking.get(tenant) ?? 0);
    return (this.#counts.get(tenant) ?? 0) + own;
  }

  /** Told before and after a message is deferred. */
  note(tenant: string): void {
    this.#own.set(tenant, (this.#own.get(tenant) ?? 0) + 1);
  }

  /** Waits until nothing of the tenant waits any more; false when that takes longer than `waitMs`. */
  async ended(tenant: string, waitMs: number): Promise<boolean> {
    const deadlineMs = this.#clock.monotonicMs() + waitMs;
    this.#waiting++;
    this.#wanted.resolve();
    try {
      while (this.count(tenant) > 0 && this.#clock.monotonicMs() < deadlineMs)
        await Promise.race([this.#looked.promise, sleep(deadlineMs - this.#clock.monotonicMs())]);
      return this.count(tenant) === 0;
    } finally {
      this.#waiting--;
    }
  }

  /** Looks once. @throws what the look throws */
  async refresh(): Promise<void> {
    const before = this.#own;
    this.#own = new Map();
    this.#looking = before;
    try {
      this.#counts = await this.#look();
    } catch (error) {
      for (const [tenant, calls] of before) this.#own.set(tenant, (this.#own.get(tenant) ?? 0) + calls);
      throw error;
    } finally {
      this.#looking = new Map();
    }
    this.#looked.resolve();
    this.#looked = Promise.withResolvers();
  }

  /** Looks until it has seen once, or the signal aborts: no call may pass before. */
  async begin(health: Health, signal: AbortSignal): Promise<void> {
    for (; !signal.aborted; await sleep(LOOK_MS, signal)) {
      try {
        await this.refresh();
        health.notReady("deferred", undefined);
        return;
      } catch (error) {
        health.notReady("deferred", messageOf(error));
      }
    }
  }

  /** Looks again and again until the signal aborts. */
  async follow(health: Health, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.refresh();
        health.warn("deferred", undefined);
      } catch (error) {
        health.warn("deferred", `which tenants have deferred records cannot be seen: ${messageOf(error)}`);
      }
      if (this.#waiting > 0) await sleep(LOOK_SOON_MS, signal);
      else await Promise.race([this.#wanted.promise, sleep(LOOK_MS, signal)]);
      this.#wanted = Promise.withResolvers();
    }
  }
}

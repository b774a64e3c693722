// A rate with a burst of one second: what may pass now, and how long until something may again.

import type { Clock } from "../base/clock.ts";

export class Rate {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #perSecond: () => number;
  #left: number;
  #atMs: number;

  /** @param perSecond may change from call to call */
  constructor(clock: Pick<Clock, "monotonicMs">, perSecond: () => number) {
    this.#clock = clock;
    this.#perSecond = perSecond;
    this.#left = perSecond();
    this.#atMs = clock.monotonicMs();
  }

  /** Takes `amount` if anything is left, also more than that: a large amount is then waited for afterwards. */
  tryTake(amount: number): boolean {
    if (this.#refilled() < 1) return false;
    this.#left -= amount;
    return true;
  }

  /** Milliseconds until `tryTake` succeeds if nobody else takes. */
  waitMs(): number {
    const left = this.#refilled();
    return left >= 1 ? 0 : Math.max(1, Math.ceil(((1 - left) / this.#perSecond()) * 1_000));
  }

  #refilled(): number {
    const [nowMs, rate] = [this.#clock.monotonicMs(), this.#perSecond()];
    this.#left = Math.min(Math.max(1, rate), this.#left + ((nowMs - this.#atMs) / 1_000) * rate);
    this.#atMs = nowMs;
    return this.#left;
  }
}

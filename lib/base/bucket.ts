// A token bucket: so much a second, and some seconds' worth of it at once.
//
// Promises: pure, the clock is the caller's; a call may begin while one whole token is there and is charged with what it really
// was afterwards, so the bucket can be in debt and a call larger than the bucket passes once it is at rest. Over any time, what
// was let in is at most rate * time + capacity + one call. `waitMs` is exact to the millisecond: after it, and not before, the next
// call may begin.

/** Sums of fractions end a little beside whole numbers. */
const ROUNDING = 1e-6;

export class TokenBucket {
  #perMs: number;
  #capacity: number;
  #tokens: number;
  #atMs: number;

  /** Begins full. @param perS tokens a second @param burstS seconds' worth that may be taken at once @param nowMs of a clock that never goes back */
  constructor(perS: number, burstS: number, nowMs: number) {
    this.#perMs = perS / 1_000;
    this.#capacity = Math.max(1, perS * burstS);
    this.#tokens = this.#capacity;
    this.#atMs = nowMs;
  }

  /** Tokens that can be there at most. */
  get capacity(): number {
    return this.#capacity;
  }

  /** Whole tokens that are there; 0 when in debt. */
  left(nowMs: number): number {
    this.#fill(nowMs);
    return Math.max(0, Math.floor(this.#tokens + ROUNDING));
  }

  /** Whether a call may begin. */
  admits(nowMs: number): boolean {
    this.#fill(nowMs);
    return this.#tokens + ROUNDING >= 1;
  }

  /** Charges what a call was, whatever is there. */
  charge(tokens: number, nowMs: number): void {
    this.#fill(nowMs);
    this.#tokens -= tokens;
  }

  /** Whole milliseconds until a call may begin; 0 when it may now. */
  waitMs(nowMs: number): number {
    return this.admits(nowMs) ? 0 : Math.ceil((1 - ROUNDING - this.#tokens) / this.#perMs);
  }

  /** Milliseconds until the bucket is full. */
  fullMs(nowMs: number): number {
    this.#fill(nowMs);
    return (this.#capacity - this.#tokens) / this.#perMs;
  }

  /** Goes on at another rate: what is there stays, as far as there is room for it, and so does a debt. */
  change(perS: number, burstS: number, nowMs: number): void {
    this.#fill(nowMs);
    this.#perMs = perS / 1_000;
    this.#capacity = Math.max(1, perS * burstS);
    this.#tokens = Math.min(this.#capacity, this.#tokens);
  }

  #fill(nowMs: number): void {
    if (nowMs <= this.#atMs) return;
    this.#tokens = Math.min(this.#capacity, this.#tokens + (nowMs - this.#atMs) * this.#perMs);
    this.#atMs = nowMs;
  }
}

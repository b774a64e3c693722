// A seeded source of randomness: a failed run is repeated with RELOG_TEST_SEED.

/** mulberry32, by Tommy Ettinger: 32 bits of state, good enough to vary tests. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** [0, 1) */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number within [min, max]. */
  int(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }
}

export const seed = Number(process.env.RELOG_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
export const LONG = process.env.RELOG_TEST_LONG === "1";

/** The same test with small numbers by default and large ones behind RELOG_TEST_LONG=1. */
export const scaled = (short: number, long: number): number => (LONG ? long : short);

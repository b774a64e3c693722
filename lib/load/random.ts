// A small seeded random source: the same seed gives the same corpus on every machine.
//
// Source: mulberry32, public domain; 32 bits of state are plenty for test data, and none of it is secret.

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 32 random bits as an unsigned number. */
  bits(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** At least 0, below 1. */
  unit(): number {
    return this.bits() / 2 ** 32;
  }

  /** A whole number of at least 0, below `end`. */
  below(end: number): number {
    return Math.floor(this.unit() * end);
  }

  /** A whole number from `first` to `last`. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** A whole number below `end`, low ones far more often: the higher the power, the more so. */
  skewed(end: number, power: number): number {
    return Math.floor(this.unit() ** power * end);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  /** `digits` hexadecimal digits, at most 8. */
  hex(digits: number): string {
    return this.bits()
      .toString(16)
      .padStart(8, "0")
      .slice(8 - digits);
  }
}

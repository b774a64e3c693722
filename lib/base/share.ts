// A bound that several owners share, of which none may hold more than a part.
//
// Promises: over the whole or over the part is refused, never queued; memory is that of owners that hold something now.

import { integer } from "./config.ts";
import { Bound } from "./loop.ts";

export const shareSettings = {
  tenantSharePercent: integer(
    "RELOG_TENANT_SHARE_MAX",
    "50",
    [1, 100],
    "percent",
    "part of RELOG_REQUESTS_IN_FLIGHT_MAX, RELOG_BYTES_IN_FLIGHT_MAX and RELOG_QUERIES_MAX that one tenant may hold: another finds room whatever it does. While there is one tenant only, it has all of it",
  ),
};

/** Takes and gives units of a bound. */
export interface Taker {
  /** Why nothing more may be taken, with the settings that say so; undefined when it was taken. @param held what the same work holds already */
  take(amount: number, held?: number): string | undefined;
  give(amount: number): void;
}

export class SharedBound {
  readonly #whole: Bound;
  readonly #partMax: number;
  readonly #what: string;
  readonly #setting: string;
  readonly #alone: () => boolean;
  readonly #owners = new Map<string, Bound>();

  /** @param what the units are, as in "queries are running" @param alone whether there is one owner only, who then has the whole */
  constructor(max: number, percent: number, what: string, setting: string, alone: () => boolean = () => false) {
    this.#whole = new Bound(max);
    this.#partMax = Math.max(1, Math.ceil((max * percent) / 100));
    this.#what = what;
    this.#setting = setting;
    this.#alone = alone;
  }

  get used(): number {
    return this.#whole.used;
  }

  /** An owner's side of it. Work that holds all of an owner's part already may grow to the whole. */
  of(owner: string): Taker {
    return { take: (amount, held = 0) => this.#take(owner, amount, held), give: (amount) => this.#give(owner, amount) };
  }

  #take(owner: string, amount: number, held: number): string | undefined {
    const part = this.#owners.get(owner) ?? new Bound(this.#partMax);
    if (this.#alone()) part.add(amount);
    else if (!part.tryTake(amount, held)) {
      return `${part.used} ${this.#what} for this tenant; RELOG_TENANT_SHARE_MAX allows one tenant ${part.max} (${this.#setting} is ${this.#whole.max})`;
    }
    if (!this.#whole.tryTake(amount, held)) {
      part.give(amount);
      return `${this.#whole.used} ${this.#what}; ${this.#setting} allows ${this.#whole.max}`;
    }
    this.#owners.set(owner, part);
    return undefined;
  }

  #give(owner: string, amount: number): void {
    const part = this.#owners.get(owner);
    part?.give(amount);
    if (part?.used === 0) this.#owners.delete(owner);
    this.#whole.give(amount);
  }
}

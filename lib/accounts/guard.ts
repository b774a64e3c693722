// Ends the open NATS connections of keys that have ended.
//
// Promises: a key that is revoked, has expired or whose tenant is stopped loses its connections within a second, while one
// process with a guard is up; any number of guards may run, because ending twice is harmless. What a change is about is looked
// for at once and again a little later, since a connection may have been let in by a process that had not heard of the change
// yet. A slow sweep over all connections finds what was missed, what ended while nobody watched, and keys that are about to
// expire. A key that this process does not know may be newer than what it has read, so its connections get STRANGE_MS. The sweep
// notes the keys that hold connections as used: to rotate one that a producer still holds would cut that producer off.
// Bounded: NAMES_MAX names at a time; beyond them everything is looked through instead.

import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { Bell, sleep } from "../base/loop.ts";
import type { Account } from "./account.ts";
import type { Directory } from "./directory.ts";
import type { NatsAccess } from "./nats.ts";
import { holderOf } from "./nats.ts";

const SWEEP_MS = 10_000;
/** When a change is looked after, counted from it: letting a connection in takes at most the server's timeout of 2 s. */
const LOOKS_MS = [0, 150, 500, 2_500] as const;
/** Keys that expire by then are looked at when they do. */
const SOON_MS = 2 * SWEEP_MS;
const RETRY_MS = 250;
const NAMES_MAX = 16;
const ENDS_AT_ONCE = 100;
/** The directory looks at the stream every second. */
const STRANGE_MS = 5_000;
/** Stands for the connections of every name. */
const ALL = "";

export interface OpenConnection {
  readonly user: string;
}

export interface GuardPorts<C extends OpenConnection> {
  /** Shows all connections, or those of one name. */
  visit(user: string | undefined, visit: (connections: readonly C[]) => Promise<void>): Promise<void>;
  end(connection: C): Promise<void>;
  /** Told by each sweep of the keys that hold connections. */
  used(keyId: string): void;
  /** Told of each key whose connections were ended, and of how many. */
  ended(tenant: string, keyId: string, connections: number): void;
  /** Why connections cannot be looked through or ended now; undefined when they can again. */
  state(why: string | undefined): void;
}

export class Guard<C extends OpenConnection> {
  readonly #access: Pick<NatsAccess, "hold" | "touched">;
  readonly #ports: GuardPorts<C>;
  readonly #clock: Pick<Clock, "now" | "monotonicMs">;
  /** Name -> when to look at its connections, in time of the monotonic clock. */
  readonly #due = new Map<string, readonly number[]>([[ALL, [0]]]);
  /** Names whose key is not known -> since when. */
  #strangers: ReadonlyMap<string, number> = new Map();
  readonly #wake = new Bell();

  constructor(access: Pick<NatsAccess, "hold" | "touched">, ports: GuardPorts<C>, clock: Pick<Clock, "now" | "monotonicMs">) {
    this.#access = access;
    this.#ports = ports;
    this.#clock = clock;
  }

  /** Looks after every change of the directory, and everything now and then, until the signal aborts. */
  async run(directory: Pick<Directory, "onChange">, signal: AbortSignal): Promise<void> {
    using _ = directory.onChange((_tenant, before) => this.changed(before));
    while (!signal.aborted) {
      try {
        await this.turn();
        this.#ports.state(undefined);
      } catch (error) {
        this.#ports.state(messageOf(error));
        await sleep(RETRY_MS, signal);
      }
      await this.#wake.wait(this.#waitMs(), signal);
    }
  }

  /** Told of an account as it was before its last change. */
  changed(before: Account): void {
    const now = this.#clock.monotonicMs();
    for (const name of this.#access.touched(before)) this.#plan(name, ...LOOKS_MS.map((afterMs) => now + afterMs));
    this.#wake.ring();
  }

  /** Does what is due. What cannot be done stays due. @throws what the ports throw */
  async turn(): Promise<void> {
    const now = this.#clock.monotonicMs();
    const due = [...this.#due].filter(([, times]) => times[0]! <= now).map(([name]) => name);
    // A look at everything is one at each name.
    const looks = due.includes(ALL) ? [this.#look(ALL, due, now)] : due.map((name) => this.#look(name, [name], now));
    const failed = (await Promise.allSettled(looks)).find(({ status }) => status === "rejected");
    if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
  }

  /** @param done what is not due any more afterwards */
  async #look(name: string, done: readonly string[], now: number): Promise<void> {
    const strangers = new Map<string, number>();
    await this.#ports.visit(name === ALL ? undefined : name, (connections) => this.#judge(connections, strangers, now, name === ALL));
    if (name === ALL) this.#strangers = strangers;
    for (const one of done) {
      const left = (this.#due.get(one) ?? []).filter((atMs) => atMs > now);
      if (left.length > 0) this.#due.set(one, left);
      else if (one === ALL) this.#due.set(ALL, [now + SWEEP_MS]);
      else this.#due.delete(one);
    }
  }

  /** Milliseconds until something is due. */
  #waitMs(): number {
    return Math.max(0, Math.min(...[...this.#due.values()].map((times) => times[0]!)) - this.#clock.monotonicMs());
  }

  #plan(name: string, ...atMs: number[]): void {
    // So many at once: one look at everything is cheaper than one at each.
    const at = this.#due.has(name) || this.#due.size <= NAMES_MAX ? name : ALL;
    const times = new Set([...(this.#due.get(at) ?? []), ...atMs]);
    this.#due.set(
      at,
      [...times].sort((a, b) => a - b),
    );
  }

  /** @param sweep whether this is a look at everything */
  async #judge(connections: readonly C[], strangers: Map<string, number>, now: number, sweep: boolean): Promise<void> {
    const over: C[] = [];
    for (const connection of connections) {
      const { user } = connection;
      const holder = holderOf(user);
      if (holder === undefined) continue;
      const hold = this.#access.hold(user);
      switch (hold.kind) {
        case "ended":
          over.push(connection);
          break;
        case "held": {
          const leftMs = hold.untilMs === null ? Number.POSITIVE_INFINITY : hold.untilMs - this.#clock.now();
          if (sweep) this.#ports.used(holder.keyId);
          if (leftMs <= SOON_MS) this.#plan(user, Math.ceil(now + leftMs));
          break;
        }
        case "unknown": {
          const sinceMs = this.#strangers.get(user) ?? now;
          strangers.set(user, sinceMs);
          if (now - sinceMs >= STRANGE_MS) over.push(connection);
          break;
        }
        default:
          hold satisfies never;
      }
    }
    await this.#endAll(over);
  }

  async #endAll(over: readonly C[]): Promise<void> {
    const ended = new Map<string, number>();
    const end = async (connection: C): Promise<void> => {
      await this.#ports.end(connection);
      ended.set(connection.user, (ended.get(connection.user) ?? 0) + 1);
    };
    try {
      for (let from = 0; from < over.length; from += ENDS_AT_ONCE) await Promise.all(over.slice(from, from + ENDS_AT_ONCE).map(end));
    } finally {
      for (const [user, connections] of ended) {
        const { tenant, keyId } = holderOf(user)!;
        this.#ports.ended(tenant, keyId, connections);
      }
    }
  }
}

// How many queries, or live tails, a tenant and its keys may have at once.
//
// Promises: over the limit is refused, never queued; a slot that is disposed twice is given back once; memory is that of owners
// that hold something now, or were refused within RETRY_S. What other processes say they run counts too, until they have said
// nothing for OTHERS_MS; so N processes are held to one limit, and may pass it by what begins while they have not heard of each other.
//
// Whoever goes on trying is slowed down, the more the harder it tries: a query's slot that is given back within REST_MS of the last
// of several refusals of its owner rests as long as it was held, times the refusals of the last second but one, and not beyond
// those REST_MS. Who was refused and waits as told finds it free again, here or where it is heard of later, unless the owner was
// refused anew meanwhile: an owner's other callers meet a slot that rests too.
// Without it one who tries all the time has a query running all the time, at the cost of other tenants (docs/adr/0017).
// `presses` tells of whom that is so, for who runs its queries.

import { z } from "zod";
import type { ErrorCode } from "../base/errors.ts";
import { RelogError } from "../base/errors.ts";
import type { Principal } from "../base/principal.ts";
import { POLICY_FIELD, policyMember, REMAINDER_FIELD, remainderMember } from "./fields.ts";
import { TELL_EVERY_MS } from "./usage.ts";
import type { LimitsLookup, TenantLimitDefaults } from "./values.ts";
import { limitOr } from "./values.ts";

export const SLOT_KINDS = {
  queries: { limit: "queries_at_once", fallback: "queriesAtOnce", code: "too_many_queries", rests: true },
  tails: { limit: "tails_at_once", fallback: "tailsAtOnce", code: "too_many_tails", rests: false },
} as const satisfies Record<string, { limit: string; fallback: keyof TenantLimitDefaults; code: ErrorCode; rests: boolean }>;

const RETRY_S = 1;
const RETRY_MS = RETRY_S * 1_000;
/** Others hear within TELL_EVERY_MS that a slot does not rest any more. */
const REST_MS = RETRY_MS - TELL_EVERY_MS;
/** How long the word of a process that fell silent counts. */
const OTHERS_MS = 1_000;
const OWNERS_MAX = 2_000;

const message = z.object({
  from: z.string(),
  taken: z.array(z.tuple([z.string(), z.int().min(1)])).max(OWNERS_MAX),
});

type Who = Pick<Principal, "tenant" | "keyId">;

/** What counts for one caller: its tenant and its key, each with its limit. */
interface Side {
  readonly owner: string;
  readonly whose: string;
  readonly policy: string;
  readonly max: number;
}

export class Slots {
  readonly #kind: keyof typeof SLOT_KINDS;
  readonly #lookup: LimitsLookup;
  readonly #defaults: TenantLimitDefaults;
  readonly #monotonicMs: () => number;
  readonly #taken = new Map<string, number>();
  /** When owners were refused last, and how often within about RETRY_MS before: each one fades over that time, in a straight line. */
  readonly #refused = new Map<string, { readonly atMs: number; readonly count: number }>();
  /** Until when slots rest, by owner. */
  readonly #restingMs = new Map<string, readonly number[]>();
  /** What other processes said last. */
  readonly #others = new Map<string, { readonly atMs: number; readonly taken: ReadonlyMap<string, number> }>();
  #toldAny = false;

  constructor(kind: keyof typeof SLOT_KINDS, lookup: LimitsLookup, defaults: TenantLimitDefaults, monotonicMs: () => number) {
    this.#kind = kind;
    this.#lookup = lookup;
    this.#defaults = defaults;
    this.#monotonicMs = monotonicMs;
  }

  /** What this process has to say to the others; undefined when that is nothing, and was nothing before. */
  tell(from: string): string | undefined {
    for (const [owner, { atMs }] of this.#refused) if (atMs <= this.#monotonicMs() - RETRY_MS) this.#refused.delete(owner);
    const owners = new Set([...this.#taken.keys(), ...this.#restingMs.keys()]);
    const all = [...owners].map((owner): [string, number] => [owner, this.#heldHere(owner)]);
    const taken = all.filter(([, held]) => held > 0).slice(0, OWNERS_MAX);
    if (taken.length === 0 && !this.#toldAny) return undefined;
    this.#toldAny = taken.length > 0;
    return JSON.stringify({ from, taken });
  }

  /** Takes another process's word. @returns false when it cannot be read */
  hear(own: string, text: string): boolean {
    const read = message.safeParse(jsonOf(text));
    if (!read.success) return false;
    const { from, taken } = read.data;
    if (from === own) return true;
    if (taken.length === 0) this.#others.delete(from);
    else this.#others.set(from, { atMs: this.#monotonicMs(), taken: new Map(taken) });
    return true;
  }

  /** Slots that a tenant holds now in this process. */
  taken(tenant: string): number {
    return this.#taken.get(tenant) ?? 0;
  }

  /** An owner's refusals of the last RETRY_MS, each faded by its age. */
  #refusals(owner: string): number {
    const refused = this.#refused.get(owner);
    return refused === undefined ? 0 : refused.count * Math.max(0, 1 - (this.#monotonicMs() - refused.atMs) / RETRY_MS);
  }

  /** Slots of an owner that rest. */
  #resting(owner: string): number {
    const all = this.#restingMs.get(owner);
    if (all === undefined) return 0;
    const left = all.filter((untilMs) => untilMs > this.#monotonicMs());
    if (left.length > 0) this.#restingMs.set(owner, left);
    else this.#restingMs.delete(owner);
    return left.length;
  }

  /** Slots that an owner holds in this process, those that rest too. */
  #heldHere(owner: string): number {
    return (this.#taken.get(owner) ?? 0) + this.#resting(owner);
  }

  /** Slots that an owner holds everywhere. */
  #held(owner: string): number {
    let held = this.#heldHere(owner);
    const oldestMs = this.#monotonicMs() - OTHERS_MS;
    for (const [from, { atMs, taken }] of this.#others) {
      if (atMs < oldestMs) this.#others.delete(from);
      else held += taken.get(owner) ?? 0;
    }
    return held;
  }

  /** Takes a slot until it is disposed. @throws RelogError too_many_queries or too_many_tails */
  take(who: Who): Disposable {
    const { limit, code } = SLOT_KINDS[this.#kind];
    const beganMs = this.#monotonicMs();
    for (const { owner, whose, max } of this.#sides(who)) {
      if (this.#held(owner) < max) continue;
      this.#refused.set(owner, { atMs: beganMs, count: this.#refusals(owner) + 1 });
      const resting = this.#resting(owner);
      const why = resting === 0 ? "" : `; ${resting} of them ended and rest, since more were refused within ${RETRY_S} s`;
      const details = { limit, value: max, of: owner === who.tenant ? "tenant" : "key" };
      throw new RelogError(code, `${whose} has ${max} ${this.#kind} at once, its limit ${limit}${why}`, { retryAfterS: RETRY_S, details });
    }
    const owners = ownersOf(who);
    for (const owner of owners) this.#taken.set(owner, (this.#taken.get(owner) ?? 0) + 1);
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) for (const owner of owners) this.#give(owner, beganMs);
        held = false;
      },
    };
  }

  /** Whether more than one try of a caller's tenant or key was refused within the last second or so. */
  presses(who: Who): boolean {
    return ownersOf(who).some((owner) => this.#refusals(owner) > 1);
  }

  /** The fields of an answer that say what is left; none without limits. */
  fields(who: Who): readonly (readonly [name: string, value: string])[] {
    const sides = this.#sides(who);
    if (sides.length === 0) return [];
    const left = ({ owner, max }: Side): number => max - this.#held(owner);
    return [
      [POLICY_FIELD, sides.map(({ policy, max }) => policyMember({ name: policy, quota: max, unit: "concurrent-requests" })).join(", ")],
      [REMAINDER_FIELD, sides.map((side) => remainderMember(side.policy, left(side))).join(", ")],
    ];
  }

  #sides(who: Who): Side[] {
    const { limit, fallback } = SLOT_KINDS[this.#kind];
    const limits = this.#lookup(who.tenant, who.keyId);
    const [tenant, key] = ownersOf(who);
    const sides: Side[] = [];
    const ofTenant = limitOr(limits.tenant[limit], this.#defaults[fallback]);
    if (ofTenant !== undefined) sides.push({ owner: tenant, whose: `tenant "${who.tenant}"`, policy: this.#kind, max: ofTenant });
    const ofKey = limitOr(limits.key[limit], 0);
    if (ofKey !== undefined) {
      const whose = `key ${who.keyId} of tenant "${who.tenant}"`;
      sides.push({ owner: key, whose, policy: `key-${this.#kind}`, max: ofKey });
    }
    return sides;
  }

  #give(owner: string, beganMs: number): void {
    const nowMs = this.#monotonicMs();
    const refused = this.#refused.get(owner);
    const restUntilMs = refused === undefined ? nowMs : Math.min(nowMs + (nowMs - beganMs) * (refused.count - 1), refused.atMs + REST_MS);
    if (SLOT_KINDS[this.#kind].rests && restUntilMs > nowMs)
      this.#restingMs.set(owner, [...(this.#restingMs.get(owner) ?? []), restUntilMs]);
    const left = (this.#taken.get(owner) ?? 0) - 1;
    if (left > 0) this.#taken.set(owner, left);
    else this.#taken.delete(owner);
  }
}

const ownersOf = ({ tenant, keyId }: Who): readonly [tenant: string, key: string] => [tenant, `${tenant}/${keyId}`];

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

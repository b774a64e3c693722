// Every account, folded in memory from the events: who a credential belongs to.
//
// Promises: authenticating is synchronous and costs one SHA-256; it knows every event that this process has read, and a key
// that was revoked, has expired, or whose tenant is disabled or deleted is nobody's from then on. An event that does not fit is
// passed over and counted, never a fault. Memory: about 1.2 KB a tenant with two keys (docs/adr/0015).

import type { Clock } from "../base/clock.ts";
import type { Principal } from "../base/principal.ts";
import type { Account, KeyState } from "./account.ts";
import { absent, evolve, isLive } from "./account.ts";
import type { KeyLimits, Limits } from "./events.ts";
import { readAccountMessage } from "./events.ts";
import { hashOf, keyIdOf, sameHash } from "./keys.ts";

/** An account, and where in the stream its last message is: what a change of it must expect. */
export interface Known {
  readonly account: Account;
  /** 0 when nothing was said of the tenant yet. */
  readonly lastSeq: number;
  /** Id of the last message. */
  readonly lastId: string;
}

export class Directory {
  readonly #clock: Pick<Clock, "now">;
  readonly #tenants = new Map<string, Known>();
  /** Key id -> tenant, for every key that is not revoked. */
  readonly #keys = new Map<string, string>();
  readonly #listeners = new Set<(tenant: string, before: Account) => void>();
  readonly #recent = new Set<string>();
  #position = 0;
  #size = 0;
  #passedOver = 0;
  #operatorEver = false;

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
  }

  /** The last sequence that was applied. */
  get position(): number {
    return this.#position;
  }

  /** Events and messages that this version does not understand. */
  get passedOver(): number {
    return this.#passedOver;
  }

  /** Whether there ever was an operator's key. */
  get operatorEver(): boolean {
    return this.#operatorEver;
  }

  /** Takes the next message about a tenant. One that was taken before changes nothing. @param payload JSON */
  apply(seq: number, tenant: string, payload: Uint8Array): void {
    if (seq <= this.#position) return;
    this.#position = seq;
    const read = readAccountMessage(jsonOf(payload));
    this.#passedOver += read?.unknown ?? 1;
    // A message is about the tenant of its subject, which is what compare-and-set guards.
    if (read === undefined || read.message.tenant !== tenant) return;
    const { time, who, events, id } = read.message;
    const before = this.known(tenant).account;
    let account = before;
    for (const event of events) {
      account = evolve(account, event, Date.parse(time), who);
      if (event.type === "key_created" && event.operator) this.#operatorEver = true;
    }
    this.#size += Number(isThere(account)) - Number(isThere(before));
    this.#tenants.set(tenant, { account, lastSeq: seq, lastId: id });
    this.#remember(id);
    if (before.keys !== account.keys) this.#index(before, account);
    for (const listener of this.#listeners) listener(tenant, before);
  }

  /** What is known of a tenant; an absent account when nothing is. */
  known(tenant: string): Known {
    return this.#tenants.get(tenant) ?? { account: absent(tenant), lastSeq: 0, lastId: "" };
  }

  /** Whether a message of this id was applied, one of the last few thousand. */
  hasApplied(id: string): boolean {
    return this.#recent.has(id);
  }

  /** Every account there is, deleted ones too, in order of their names. */
  accounts(): Account[] {
    return [...this.#tenants.values()].map(({ account }) => account).sort((a, b) => (a.tenant < b.tenant ? -1 : 1));
  }

  /** Tenants, those not deleted. */
  get size(): number {
    return this.#size;
  }

  /** Whose credential this is; undefined when it is nobody's. @param hash of it, when it is known already */
  authenticate(credential: string, hash = hashOf(credential)): Principal | undefined {
    const id = keyIdOf(credential);
    const key = id === undefined ? undefined : this.#live(id);
    // The same work whether the id is known or not.
    const same = sameHash(hash, key?.state.hash ?? NOBODY);
    if (!same || key === undefined) return undefined;
    return { tenant: key.tenant, keyId: key.state.id, scopes: key.state.scopes, operator: key.state.operator };
  }

  /** Whether a key that authenticated before still would: for connections and answers that outlive their request. */
  isAlive(keyId: string): boolean {
    return this.#live(keyId) !== undefined;
  }

  /** Whether a tenant may send and ask. */
  isActive(tenant: string): boolean {
    return this.#tenants.get(tenant)?.account.status === "active";
  }

  /** The limits of a tenant and of one of its keys; the same objects until they change. */
  limitsOf(tenant: string, keyId: string): { readonly tenant: Limits; readonly key: KeyLimits } {
    const account = this.#tenants.get(tenant)?.account;
    return { tenant: account?.limits ?? NO_LIMITS, key: account?.keys.get(keyId)?.limits ?? NO_LIMITS };
  }

  /** Calls `listener` with the tenant, and its account as it was, after each change of an account. Disposing ends it. */
  onChange(listener: (tenant: string, before: Account) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #live(id: string): { readonly tenant: string; readonly state: KeyState } | undefined {
    const tenant = this.#keys.get(id);
    if (tenant === undefined) return undefined;
    const account = this.#tenants.get(tenant)?.account;
    const state = account?.keys.get(id);
    if (account?.status !== "active" || state === undefined || !isLive(state, this.#clock.now())) return undefined;
    return { tenant, state };
  }

  #index(before: Account, now: Account): void {
    for (const [id, { revokedMs }] of before.keys) {
      if (revokedMs === null && this.#keys.get(id) === now.tenant) this.#keys.delete(id);
    }
    // Ids are random; should one ever be there twice, it stays whose it was.
    for (const [id, { revokedMs }] of now.keys) if (revokedMs === null && !this.#keys.has(id)) this.#keys.set(id, now.tenant);
  }

  #remember(id: string): void {
    this.#recent.add(id);
    if (this.#recent.size > RECENT_MAX) for (const oldest of this.#recent) return void this.#recent.delete(oldest);
  }
}

const isThere = ({ status }: Account): boolean => status !== "absent" && status !== "deleted";

function jsonOf(payload: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(payload).toString("utf8"));
  } catch {
    return undefined;
  }
}

const NO_LIMITS: KeyLimits = {};
const RECENT_MAX = 4_096;
const NOBODY = "0".repeat(64);

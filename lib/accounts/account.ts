// A tenant's account as its events say it is.
//
// Promises: pure; `evolve` takes every event as it is, in any order, and never fails: what does not fit changes nothing.
// Bounded: all keys that are not revoked (the decider bounds them), and the last REVOKED_KEPT of the others.

import type { Scope } from "../base/principal.ts";
import type { AccountEvent, Certificate, KeyLimits, Limits, Quotas } from "./events.ts";

/** Of revoked keys the last are kept, to be listed. */
export const REVOKED_KEPT = 100;
/** Of classes that a tenant had the last are kept: those that rows may still bear. */
export const CLASSES_KEPT = 64;

export interface KeyState {
  readonly id: string;
  readonly hash: string;
  readonly label: string;
  readonly scopes: readonly Scope[];
  readonly operator: boolean;
  /** Milliseconds since the epoch, as all times here. */
  readonly createdMs: number;
  readonly createdBy: string;
  readonly expiresMs: number | null;
  readonly revokedMs: number | null;
  readonly replaces: string | null;
  readonly limits: KeyLimits;
}

export interface Account {
  readonly tenant: string;
  readonly status: "absent" | "active" | "disabled" | "deleted";
  readonly title: string;
  readonly createdMs: number;
  /** 0 unless it is deleted. */
  readonly deletedMs: number;
  /** Why it is disabled or deleted. */
  readonly reason: string;
  readonly keys: ReadonlyMap<string, KeyState>;
  readonly limits: Limits;
  readonly quotas: Quotas;
  readonly retentionDays: number | null;
  /** Classes that it had before -> until when. */
  readonly retentionUntil: ReadonlyMap<number | null, number>;
  /** Of a deleted tenant: what was removed, for each site whose tables are without it. */
  readonly erased: readonly Certificate[];
}

const NO_KEYS: ReadonlyMap<string, KeyState> = new Map();
const NO_CLASSES: ReadonlyMap<number | null, number> = new Map();
const NOTHING: Limits & Quotas = {};
/** The account of a tenant that nothing was said of yet. */
export function absent(tenant: string): Account {
  return {
    tenant,
    status: "absent",
    title: "",
    createdMs: 0,
    deletedMs: 0,
    reason: "",
    keys: NO_KEYS,
    limits: NOTHING,
    quotas: NOTHING,
    retentionDays: null,
    retentionUntil: NO_CLASSES,
    erased: [],
  };
}

/** Whether a key of an account that is active authenticates. */
export function isLive({ expiresMs, revokedMs }: KeyState, nowMs: number): boolean {
  return revokedMs === null && (expiresMs === null || expiresMs > nowMs);
}

/** The account after an event. @param atMs when it happened, milliseconds since the epoch @param who did it */
export function evolve(account: Account, event: AccountEvent, atMs: number, who = ""): Account {
  // A tombstone is the end, whatever is said of the tenant afterwards, but for what was removed of it.
  if (account.status === "deleted") return event.type === "tenant_erased" ? erasedAt(account, event.certificate) : account;
  switch (event.type) {
    case "tenant_created":
      return account.status === "absent" ? { ...account, status: "active", title: event.title, createdMs: atMs } : account;
    case "tenant_renamed":
      return { ...account, title: event.title };
    case "tenant_disabled":
      return { ...account, status: "disabled", reason: event.reason };
    case "tenant_enabled":
      return { ...account, status: "active", reason: "" };
    case "tenant_deleted":
      return {
        ...absent(account.tenant),
        status: "deleted",
        title: account.title,
        createdMs: account.createdMs,
        deletedMs: atMs,
        reason: event.reason,
      };
    case "limits_changed":
      return { ...account, limits: merged(account.limits, event.limits) };
    case "quotas_changed":
      return { ...account, quotas: merged(account.quotas, event.quotas) };
    case "retention_changed":
      return {
        ...account,
        retentionDays: event.retention_days,
        retentionUntil: keptUntil(account.retentionUntil, account.retentionDays, atMs),
      };
    case "tenant_erased":
      return account;
    default:
      return { ...account, keys: evolveKeys(account.keys, event, atMs, who) };
  }
}

function erasedAt(account: Account, certificate: Certificate): Account {
  if (account.erased.some(({ site }) => site === certificate.site)) return account;
  return { ...account, erased: [...account.erased, certificate] };
}

function keptUntil(known: Account["retentionUntil"], days: number | null, atMs: number): Account["retentionUntil"] {
  const next = new Map(known);
  // Last in the order: the first is the one that ended longest ago.
  next.delete(days);
  next.set(days, atMs);
  for (const oldest of next.keys()) if (next.size > CLASSES_KEPT) next.delete(oldest);
  return next;
}

type KeyEvent = Extract<AccountEvent, { readonly type: "key_created" | "key_changed" | "key_limited" | "key_revoked" }>;

function evolveKeys(keys: Account["keys"], event: KeyEvent, atMs: number, who: string): Account["keys"] {
  const known = keys.get(event.key);
  switch (event.type) {
    case "key_created": {
      if (known !== undefined) return keys;
      const { hash, label, scopes, operator, replaces } = event;
      const expiresMs = event.expires === null ? null : Date.parse(event.expires);
      const key: KeyState = {
        id: event.key,
        hash,
        label,
        scopes,
        operator,
        createdMs: atMs,
        createdBy: who,
        expiresMs,
        revokedMs: null,
        replaces,
        limits: NOTHING,
      };
      return new Map(keys).set(key.id, key);
    }
    case "key_changed": {
      if (known === undefined) return keys;
      const expiresMs = event.expires === undefined ? known.expiresMs : event.expires === null ? null : Date.parse(event.expires);
      return new Map(keys).set(known.id, { ...known, label: event.label ?? known.label, expiresMs });
    }
    case "key_limited": {
      if (known === undefined) return keys;
      return new Map(keys).set(known.id, { ...known, limits: merged(known.limits, event.limits) });
    }
    case "key_revoked": {
      if (known === undefined || known.revokedMs !== null) return keys;
      const next = new Map(keys).set(known.id, { ...known, revokedMs: atMs });
      // Not the one that was revoked just now, whatever the clock of its writer says.
      const others = [...next.values()].filter(({ id, revokedMs }) => revokedMs !== null && id !== known.id);
      others.sort((a, b) => a.revokedMs! - b.revokedMs!);
      for (const { id } of others.slice(0, Math.max(0, others.length + 1 - REVOKED_KEPT))) next.delete(id);
      return next;
    }
    default:
      return event satisfies never;
  }
}

/** The values after a change: null takes one away. */
function merged<T extends Readonly<Record<string, number | string | null | undefined>>>(now: T, change: T): T {
  return Object.fromEntries(Object.entries({ ...now, ...change }).filter(([, value]) => value !== null && value !== undefined)) as T;
}

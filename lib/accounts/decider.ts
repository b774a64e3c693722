// The rules of a tenant's account: what a command does to it, as events.
//
// Promises: pure; `decide` looks at the account and the command and returns what happened, or says why nothing may. A command
// that is already done yields no event, so that it may be tried again. Bounded: KEYS_MAX keys that are not revoked.

import type { ErrorCode } from "../base/errors.ts";
import { RelogError } from "../base/errors.ts";
import type { Scope } from "../base/principal.ts";
import type { Account, KeyState } from "./account.ts";
import { isLive } from "./account.ts";
import type { AccountEvent, Certificate, KeyLimits, Limits, Quotas } from "./events.ts";

export const KEYS_MAX = 1_000;

export type Command =
  | { readonly type: "create_tenant"; readonly title: string }
  /** Of the installation's own tenant. */
  | { readonly type: "ensure_tenant" }
  | { readonly type: "rename_tenant"; readonly title: string }
  | { readonly type: "disable_tenant"; readonly reason: string }
  | { readonly type: "enable_tenant" }
  | { readonly type: "delete_tenant"; readonly reason: string }
  /** That nothing of a deleted tenant is left on a site. */
  | { readonly type: "certify_erasure"; readonly certificate: Certificate }
  | {
      readonly type: "create_key";
      readonly key: string;
      readonly hash: string;
      readonly label: string;
      readonly scopes: readonly Scope[];
      readonly expiresMs: number | null;
      readonly operator: boolean;
    }
  /** Only where no operator's key ever was. */
  | { readonly type: "ensure_operator_key"; readonly key: string; readonly hash: string }
  | { readonly type: "change_key"; readonly key: string; readonly label?: string; readonly expiresMs?: number | null }
  | { readonly type: "rotate_key"; readonly key: string; readonly next: string; readonly hash: string; readonly graceMs: number }
  | { readonly type: "limit_key"; readonly key: string; readonly limits: KeyLimits }
  | { readonly type: "revoke_key"; readonly key: string; readonly reason: string }
  | { readonly type: "set_limits"; readonly limits?: Limits; readonly quotas?: Quotas; readonly retentionDays?: number | null };

const ALL_SCOPES: readonly Scope[] = ["ingest", "query", "admin"];

/** Who asks, and when. */
export interface Circumstances {
  readonly nowMs: number;
  /** Only operators may make, change or end operators' keys: else an admin of the tenant could become one. */
  readonly operator: boolean;
}

/** What a command does: events, none when it is done already, or why it must not be done. */
export function decide(account: Account, command: Command, circumstances: Circumstances): readonly AccountEvent[] | RelogError {
  const { tenant, status } = account;
  if (command.type === "certify_erasure") return certified(account, command.certificate);
  if (status === "deleted") return refused("tenant_deleted", `tenant "${tenant}" was deleted; its name is not used again`);
  if (command.type === "create_tenant" || command.type === "ensure_tenant") {
    if (status === "absent") return [{ type: "tenant_created", title: command.type === "create_tenant" ? command.title : "" }];
    return command.type === "ensure_tenant" ? [] : refused("tenant_exists", `there is a tenant "${tenant}" already`);
  }
  if (status === "absent") return refused("not_found", `there is no tenant "${tenant}"`);
  switch (command.type) {
    case "rename_tenant":
      return command.title === account.title ? [] : [{ type: "tenant_renamed", title: command.title }];
    case "disable_tenant":
      return status === "disabled" ? [] : [{ type: "tenant_disabled", reason: command.reason }];
    case "enable_tenant":
      return status === "active" ? [] : [{ type: "tenant_enabled" }];
    case "delete_tenant":
      return [{ type: "tenant_deleted", reason: command.reason }];
    case "set_limits":
      return circumstances.operator || isOwnChoice(command)
        ? changedLimits(account, command)
        : refused("forbidden", "a tenant's own admin may choose quotas.over_quota; everything else of its limits takes an operator");
    default:
      return mayTouch(account, command, circumstances.operator)
        ? decideKeys(account, command, circumstances.nowMs)
        : refused("forbidden", "only an operator of the installation may make, change or end operators' keys");
  }
}

function certified({ tenant, status, erased }: Account, certificate: Certificate): readonly AccountEvent[] | RelogError {
  if (status !== "deleted") return refused("bad_request", `tenant "${tenant}" is not deleted`);
  return erased.some(({ site }) => site === certificate.site) ? [] : [{ type: "tenant_erased", certificate }];
}

type KeyCommand = Extract<
  Command,
  { readonly type: "create_key" | "ensure_operator_key" | "change_key" | "rotate_key" | "limit_key" | "revoke_key" }
>;

function mayTouch(account: Account, command: KeyCommand, operator: boolean): boolean {
  if (operator) return true;
  const makes = command.type === "ensure_operator_key" || (command.type === "create_key" && command.operator);
  return !makes && account.keys.get(command.key)?.operator !== true;
}

function decideKeys(account: Account, command: KeyCommand, nowMs: number): readonly AccountEvent[] | RelogError {
  switch (command.type) {
    case "create_key":
      return newKeyEvents(account, command, nowMs);
    case "ensure_operator_key": {
      if ([...account.keys.values()].some(({ operator }) => operator)) return [];
      const label = "first operator key";
      return newKeyEvents(account, { ...command, label, scopes: ALL_SCOPES, expiresMs: null, operator: true }, nowMs);
    }
    case "change_key": {
      const key = account.keys.get(command.key);
      const fault = keyFault(account, key, command.key, undefined);
      if (fault !== undefined || key === undefined) return fault!;
      const label = command.label === key.label ? undefined : command.label;
      const expires = command.expiresMs === key.expiresMs ? undefined : command.expiresMs;
      if (label === undefined && expires === undefined) return [];
      if (typeof expires === "number" && expires <= nowMs) return inThePast();
      return [
        {
          type: "key_changed",
          key: key.id,
          ...(label === undefined ? {} : { label }),
          ...(expires === undefined ? {} : { expires: iso(expires) }),
        },
      ];
    }
    case "rotate_key":
      return rotated(account, command, nowMs);
    case "limit_key": {
      const key = account.keys.get(command.key);
      const fault = keyFault(account, key, command.key, undefined);
      if (fault !== undefined || key === undefined) return fault!;
      const limits = changed(key.limits, command.limits);
      return limits === undefined ? [] : [{ type: "key_limited", key: key.id, limits }];
    }
    case "revoke_key": {
      const key = account.keys.get(command.key);
      if (key === undefined) return noKey(account, command.key);
      return key.revokedMs === null ? [{ type: "key_revoked", key: key.id, reason: command.reason }] : [];
    }
    default:
      return command satisfies never;
  }
}

type NewKeyFacts = Omit<Extract<Command, { type: "create_key" }>, "type">;

function newKeyEvents(
  account: Account,
  made: NewKeyFacts,
  nowMs: number,
  replaces: string | null = null,
): readonly AccountEvent[] | RelogError {
  const { key, hash, label, scopes, expiresMs, operator } = made;
  if (account.keys.has(key)) return account.keys.get(key)!.hash === hash ? [] : refused("bad_request", `there is a key ${key} already`);
  if (expiresMs !== null && expiresMs <= nowMs) return inThePast();
  const held = [...account.keys.values()].filter(({ revokedMs }) => revokedMs === null).length;
  if (held >= KEYS_MAX)
    return refused("too_many_keys", `tenant "${account.tenant}" has ${held} keys that are not revoked; at most ${KEYS_MAX} are allowed`);
  return [{ type: "key_created", key, hash, label, scopes: [...scopes], expires: iso(expiresMs), operator, replaces }];
}

/** A successor with the same rights and limits; the old key lives on for the grace, and no longer than it would have. */
function rotated(account: Account, command: Extract<Command, { type: "rotate_key" }>, nowMs: number): readonly AccountEvent[] | RelogError {
  const { next, hash, graceMs } = command;
  if (account.keys.get(next)?.hash === hash) return [];
  const old = account.keys.get(command.key);
  const fault = keyFault(account, old, command.key, nowMs);
  if (fault !== undefined || old === undefined) return fault!;
  const successor = [...account.keys.values()].find(({ replaces, revokedMs }) => replaces === old.id && revokedMs === null);
  if (successor !== undefined)
    return refused("key_rotated", `key ${old.id} was rotated: ${successor.id} takes over from it; rotate or revoke that one`);
  // A key that expires gets a successor that lives as long as it was meant to.
  const expiresMs = old.expiresMs === null ? null : nowMs + (old.expiresMs - old.createdMs);
  const created = newKeyEvents(account, { ...old, key: next, hash, expiresMs }, nowMs, old.id);
  if (created instanceof RelogError) return created;
  const endMs = Math.min(nowMs + graceMs, old.expiresMs ?? Number.POSITIVE_INFINITY);
  const end: AccountEvent =
    graceMs === 0
      ? { type: "key_revoked", key: old.id, reason: `rotated to ${next}` }
      : { type: "key_changed", key: old.id, expires: iso(endMs) };
  const limited: AccountEvent[] = Object.keys(old.limits).length === 0 ? [] : [{ type: "key_limited", key: next, limits: old.limits }];
  return [...created, ...limited, end];
}

/** Whether a change of limits is one that a tenant decides itself: what becomes of records beyond its quota. */
function isOwnChoice({ limits, quotas = {}, retentionDays }: Extract<Command, { type: "set_limits" }>): boolean {
  return limits === undefined && retentionDays === undefined && Object.keys(quotas).every((name) => name === "over_quota");
}

/** What of the wanted values is not so yet. */
function changed<T extends object>(now: T, wanted: T | undefined): T | undefined {
  const entries = Object.entries(wanted ?? {}).filter(([name, value]) => value !== undefined && (now[name as keyof T] ?? null) !== value);
  return entries.length === 0 ? undefined : (Object.fromEntries(entries) as T);
}

function changedLimits(account: Account, { limits, quotas, retentionDays }: Extract<Command, { type: "set_limits" }>): AccountEvent[] {
  const [newLimits, newQuotas] = [changed(account.limits, limits), changed(account.quotas, quotas)];
  return [
    ...(newLimits === undefined ? [] : [{ type: "limits_changed", limits: newLimits } as const]),
    ...(newQuotas === undefined ? [] : [{ type: "quotas_changed", quotas: newQuotas } as const]),
    ...(retentionDays === undefined || retentionDays === account.retentionDays
      ? []
      : [{ type: "retention_changed", retention_days: retentionDays } as const]),
  ];
}

const refused = (code: ErrorCode, message: string): RelogError => new RelogError(code, message);
const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
const noKey = ({ tenant }: Account, key: string): RelogError => refused("not_found", `tenant "${tenant}" has no key ${key}`);
const inThePast = (): RelogError => refused("bad_request", "expires: the key would be expired already; revoke it to end it now");

/** Why a key cannot be changed. @param nowMs given when it must not be expired either */
function keyFault(account: Account, key: KeyState | undefined, id: string, nowMs: number | undefined): RelogError | undefined {
  if (key === undefined) return noKey(account, id);
  if (key.revokedMs !== null) return refused("key_ended", `key ${id} is revoked`);
  return nowMs === undefined || isLive(key, nowMs) ? undefined : refused("key_ended", `key ${id} is expired`);
}

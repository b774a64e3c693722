// Accounts and keys as they are shown, over HTTP and by the commands: never a hash.

import { RelogError } from "../base/errors.ts";
import type { Account, KeyState } from "./account.ts";
import { isLive } from "./account.ts";
import type { ShownErasure, ShownKey, ShownLimits, ShownTenant } from "./endpoints.ts";

const iso = (ms: number | null | undefined): string | null => (ms === null || ms === undefined ? null : new Date(ms).toISOString());

/** @param usedMs when it was last used; undefined when never */
export function shownKey(key: KeyState, nowMs: number, usedMs: number | undefined): ShownKey {
  const { id, label, scopes, operator, createdMs, createdBy, expiresMs, revokedMs, replaces, limits } = key;
  return {
    id,
    label,
    scopes: [...scopes],
    operator,
    state: revokedMs !== null ? "revoked" : isLive(key, nowMs) ? "live" : "expired",
    created: iso(createdMs)!,
    created_by: createdBy,
    expires: iso(expiresMs),
    revoked: iso(revokedMs),
    last_used: iso(usedMs),
    limits,
    replaces,
  };
}

/** What is kept of limits. */
export function shownLimits({ limits, quotas, retentionDays }: Account): ShownLimits {
  return { limits, quotas, retention_days: retentionDays };
}

/** What was removed of a deleted tenant. @throws RelogError bad_request when it is not deleted */
export function shownErasure({ tenant, status, reason, erased }: Account): ShownErasure {
  if (status !== "deleted") throw new RelogError("bad_request", `tenant "${tenant}" is not deleted: nothing of it was removed`);
  return { tenant, reason, state: erased.length === 0 ? "removing" : "removed", certificates: [...erased] };
}

/** An account that there is, or was. */
export function shownTenant(account: Account, nowMs: number): ShownTenant {
  const { tenant, title, status, reason, createdMs, keys } = account;
  if (status === "absent") throw new Error(`tenant "${tenant}" is not there to be shown`);
  let live = 0;
  for (const key of keys.values()) if (isLive(key, nowMs)) live++;
  return { tenant, title, status, reason, created: iso(createdMs)!, keys: live, ...shownLimits(account) };
}

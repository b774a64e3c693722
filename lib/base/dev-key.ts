// One key and one tenant from the settings, until accounts exist.

import { createHash, timingSafeEqual } from "node:crypto";
import { secret, text } from "./config.ts";
import type { Authenticate } from "./principal.ts";
import { SCOPES } from "./principal.ts";

export const devKeySettings = {
  key: secret("RELOG_KEY", undefined, "the API key of the one tenant; `npm start` makes one"),
  tenant: text("RELOG_TENANT", "default", "the tenant that the key belongs to"),
};

/** Knows exactly one key; compares in constant time. */
export function singleKey(key: string, tenant: string): Authenticate {
  const expected = createHash("sha256").update(key).digest();
  return (credential) => {
    const given = createHash("sha256").update(credential).digest();
    return timingSafeEqual(expected, given) ? { tenant, keyId: "env", scopes: SCOPES } : undefined;
  };
}

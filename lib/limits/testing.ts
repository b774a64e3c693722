// Limits that a test sets, and a clock that it moves.

import type { Limits, LimitsLookup, TenantLimitDefaults } from "./values.ts";

export const NO_DEFAULTS: TenantLimitDefaults = {
  requestsPerS: 0,
  recordsPerS: 0,
  bytesPerS: 0,
  burstMs: 10_000,
  queriesAtOnce: 0,
  tailsAtOnce: 0,
  attributeNamesPerDay: 0,
};

/** @param limits by tenant, or by `tenant/key` */
export function lookupOf(limits: Readonly<Record<string, Limits>>): LimitsLookup {
  const none: Limits = {};
  return (tenant, keyId) => ({ tenant: limits[tenant] ?? none, key: limits[`${tenant}/${keyId}`] ?? none });
}

// The limits of a tenant and its keys, as far as this folder acts on them, and what counts where a tenant has none of its own.

import type { Values } from "../base/config.ts";
import { duration, integer } from "../base/config.ts";

type Amount = number | null | undefined;

/** Names and meanings are those of the accounts' events. */
export interface Limits {
  readonly ingest_requests_per_second?: Amount;
  readonly ingest_records_per_second?: Amount;
  readonly ingest_bytes_per_second?: Amount;
  readonly burst_seconds?: Amount;
  readonly queries_at_once?: Amount;
  readonly tails_at_once?: Amount;
  readonly attributes_per_record?: Amount;
  readonly attribute_names_per_day?: Amount;
}

/** The limits of a tenant and of one of its keys as they are now; the same objects until one of them changes. */
export interface LimitsOf {
  readonly tenant: Limits;
  readonly key: Limits;
}
export type LimitsLookup = (tenant: string, keyId: string) => LimitsOf;

const NONE_MAX = Number.MAX_SAFE_INTEGER;

export const tenantLimitSettings = {
  requestsPerS: integer(
    "RELOG_TENANT_REQUESTS_PER_SECOND_MAX",
    "0",
    [0, NONE_MAX],
    "requests/s",
    "of a tenant without ingest_requests_per_second of its own; 0 is no limit, as for the other tenants' settings",
  ),
  recordsPerS: integer(
    "RELOG_TENANT_RECORDS_PER_SECOND_MAX",
    "0",
    [0, NONE_MAX],
    "records/s",
    "of a tenant without ingest_records_per_second of its own",
  ),
  bytesPerS: integer(
    "RELOG_TENANT_BYTES_PER_SECOND_MAX",
    "0",
    [0, NONE_MAX],
    "bytes/s",
    "of bodies, decompressed, of a tenant without ingest_bytes_per_second of its own",
  ),
  burstMs: duration(
    "RELOG_TENANT_BURST",
    "10s",
    "how much of a second's limits may come at once where burst_seconds is not given: producers send what they held back after a pause",
  ),
  queriesAtOnce: integer("RELOG_TENANT_QUERIES_MAX", "0", [0, 10_000], "queries", "running at once of a tenant without queries_at_once"),
  tailsAtOnce: integer("RELOG_TENANT_TAILS_MAX", "0", [0, 100_000], "live tails", "open at once of a tenant without tails_at_once"),
  attributeNamesPerDay: integer(
    "RELOG_TENANT_ATTRIBUTE_NAMES_PER_DAY_MAX",
    "2000",
    [0, 20_000],
    "names",
    "different names of attributes in a UTC day of a tenant without attribute_names_per_day; far more than any program writes by hand",
  ),
};
export type TenantLimitDefaults = Values<typeof tenantLimitSettings>;

/** Names that are kept for a tenant and day at most, whatever its limit says. */
export const ATTRIBUTE_NAMES_HARD_MAX = 20_000;

/** A limit, the installation's where there is none; undefined is no limit. */
export function limitOr(own: Amount, fallback: number): number | undefined {
  const value = own ?? fallback;
  return value === 0 ? undefined : value;
}

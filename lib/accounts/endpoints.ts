// The accounts' HTTP endpoints as data: lib/accounts/api.ts serves them, the OpenAPI document describes them.

import { z } from "zod";
import { endpoint } from "../base/endpoint.ts";
import { SCOPES } from "../base/principal.ts";
import { certificate, keyId, keyLimits, limits, line, quotas, retentionDays, scopes, tenantName, time } from "./events.ts";

const PAGE_MAX = 1_000;
const PAGE_DEFAULT = 100;
const GRACE_S_MAX = 30 * 86_400;
export const GRACE_S_DEFAULT = 86_400;

const limit = z.coerce.number().pipe(z.int().min(1).max(PAGE_MAX)).default(PAGE_DEFAULT).describe("Entries of a page.");
const reason = line().default("").describe("Why, for the audit.");

const key = z.object({
  id: keyId,
  label: z.string(),
  scopes: z.array(z.enum(SCOPES)),
  operator: z.boolean().describe("Whether it may run the installation."),
  state: z.enum(["live", "expired", "revoked"]),
  created: z.string(),
  created_by: z.string(),
  expires: z.string().nullable(),
  revoked: z.string().nullable(),
  last_used: z
    .string()
    .nullable()
    .describe("To the minute, and up to a minute late; null when it was never used, or when that cannot be read now."),
  limits: keyLimits,
  replaces: keyId.nullable().describe("The key that it takes over from."),
});
const madeKey = key.extend({ key: z.string().describe("The whole key. It is shown here and never again.") });
const kept = z.object({
  limits,
  quotas,
  retention_days: retentionDays.describe("Null is what the installation says."),
});
const tenant = z.object({
  tenant: z.string(),
  title: z.string(),
  status: z.enum(["active", "disabled", "deleted"]),
  reason: z.string().describe("Why it is disabled or deleted."),
  created: z.string(),
  keys: z.int().describe("Keys that are live now."),
  ...kept.shape,
});
const entry = z.object({
  seq: z.int(),
  id: z.string(),
  time: z.string(),
  what: z.string(),
  tenant: z.string().nullable(),
  who: z.string(),
  where: z.string(),
  data: z.record(z.string(), z.unknown()),
});

const ofTenant = z.object({ tenant: tenantName });
const erasure = z.object({
  tenant: tenantName,
  reason: z.string(),
  state: z.enum(["removing", "removed"]).describe("`removed` once a site has certified it."),
  certificates: z.array(certificate),
});
const ofKey = z.object({ tenant: tenantName, key: keyId });
const WRITES = ["not_found", "tenant_deleted", "accounts_busy", "stream_unavailable", "outcome_unknown"] as const;

export const ENDPOINTS = {
  whoAmI: endpoint({
    id: "whoAmI",
    method: "get",
    path: "/v1/whoami",
    summary: "Whose key this is, and what it may do.",
    access: "key",
    answer: z.object({ tenant: z.string(), key: z.string(), scopes: z.array(z.enum(SCOPES)), operator: z.boolean() }),
  }),
  listTenants: endpoint({
    id: "listTenants",
    method: "get",
    path: "/v1/tenants",
    summary: "The tenants, in order of their names.",
    access: "operator",
    query: z.strictObject({
      after: z.string().max(63).default("").describe("Tenants behind this name."),
      limit,
      deleted: z.enum(["true", "false"]).default("false"),
    }),
    answer: z.object({ tenants: z.array(tenant), cursor: z.string().nullable() }),
  }),
  createTenant: endpoint({
    id: "createTenant",
    method: "post",
    path: "/v1/tenants",
    summary: "Makes a tenant.",
    access: "operator",
    body: z.strictObject({ tenant: tenantName, title: line().default("") }),
    status: 201,
    answer: tenant,
    errors: [...WRITES, "tenant_exists"],
  }),
  getTenant: endpoint({
    id: "getTenant",
    method: "get",
    path: "/v1/tenants/{tenant}",
    summary: "One tenant: an operator's key may read any, another its own.",
    access: "admin",
    params: ofTenant,
    answer: tenant,
    errors: ["not_found"],
  }),
  renameTenant: endpoint({
    id: "renameTenant",
    method: "patch",
    path: "/v1/tenants/{tenant}",
    summary: "Changes a tenant's title.",
    access: "operator",
    params: ofTenant,
    body: z.strictObject({ title: line() }),
    answer: tenant,
    errors: WRITES,
  }),
  disableTenant: endpoint({
    id: "disableTenant",
    method: "post",
    path: "/v1/tenants/{tenant}/disable",
    summary: "Stops a tenant: its keys do not authenticate until it is enabled.",
    access: "operator",
    params: ofTenant,
    body: z.strictObject({ reason }),
    answer: tenant,
    errors: WRITES,
  }),
  enableTenant: endpoint({
    id: "enableTenant",
    method: "post",
    path: "/v1/tenants/{tenant}/enable",
    summary: "Lets a disabled tenant go on.",
    access: "operator",
    params: ofTenant,
    answer: tenant,
    errors: WRITES,
  }),
  deleteTenant: endpoint({
    id: "deleteTenant",
    method: "delete",
    path: "/v1/tenants/{tenant}",
    summary:
      "Deletes a tenant for good: its keys end at once and its name is not used again. Its records are removed in the background; then there is a certificate.",
    access: "operator",
    params: ofTenant,
    query: z.strictObject({ reason }),
    answer: tenant,
    errors: WRITES,
  }),
  getCertificate: endpoint({
    id: "getCertificate",
    method: "get",
    path: "/v1/tenants/{tenant}/certificate",
    summary: "What was removed of a deleted tenant, for each site that has nothing of it any more, and what is left until it ages out.",
    access: "operator",
    params: ofTenant,
    answer: erasure,
    errors: ["not_found", "bad_request"],
  }),
  listKeys: endpoint({
    id: "listKeys",
    method: "get",
    path: "/v1/tenants/{tenant}/keys",
    summary: "A tenant's keys, newest first; of the revoked ones the last hundred.",
    access: "admin",
    params: ofTenant,
    answer: z.object({ keys: z.array(key) }),
    errors: ["not_found"],
  }),
  createKey: endpoint({
    id: "createKey",
    method: "post",
    path: "/v1/tenants/{tenant}/keys",
    summary: "Makes a key. The answer holds it, once. Asked twice, it makes two.",
    access: "admin",
    params: ofTenant,
    body: z.strictObject({
      label: line().default(""),
      scopes,
      expires: time.nullable().default(null).describe("RFC 3339; null is never."),
      operator: z.boolean().default(false).describe("Whether it may run the installation; only operators may make such keys."),
    }),
    status: 201,
    answer: madeKey,
    errors: [...WRITES, "too_many_keys"],
  }),
  changeKey: endpoint({
    id: "changeKey",
    method: "patch",
    path: "/v1/tenants/{tenant}/keys/{key}",
    summary: "Changes a key's label or expiry.",
    access: "admin",
    params: ofKey,
    body: z.strictObject({ label: line().optional(), expires: time.nullable().optional() }),
    answer: key,
    errors: [...WRITES, "key_ended"],
  }),
  rotateKey: endpoint({
    id: "rotateKey",
    method: "post",
    path: "/v1/tenants/{tenant}/keys/{key}/rotate",
    summary: "Makes a successor with the same rights; the old key expires after the grace. The answer holds the new key, once.",
    access: "admin",
    params: ofKey,
    body: z.strictObject({
      grace_s: z
        .int()
        .min(0)
        .max(GRACE_S_MAX)
        .default(GRACE_S_DEFAULT)
        .describe("Seconds that both keys live; 0 revokes the old one at once."),
    }),
    status: 201,
    answer: madeKey,
    errors: [...WRITES, "key_ended", "key_rotated", "too_many_keys"],
  }),
  limitKey: endpoint({
    id: "limitKey",
    method: "patch",
    path: "/v1/tenants/{tenant}/keys/{key}/limits",
    summary: "Limits a key below its tenant's limits; null takes a limit away.",
    access: "admin",
    params: ofKey,
    body: keyLimits,
    answer: key,
    errors: [...WRITES, "key_ended"],
  }),
  revokeKey: endpoint({
    id: "revokeKey",
    method: "delete",
    path: "/v1/tenants/{tenant}/keys/{key}",
    summary: "Ends a key for good, within a second on every process.",
    access: "admin",
    params: ofKey,
    query: z.strictObject({ reason }),
    answer: key,
    errors: WRITES,
  }),
  getLimits: endpoint({
    id: "getLimits",
    method: "get",
    path: "/v1/tenants/{tenant}/limits",
    summary: "A tenant's limits, quotas and retention.",
    access: "admin",
    params: ofTenant,
    answer: kept,
    errors: ["not_found"],
  }),
  setLimits: endpoint({
    id: "setLimits",
    method: "patch",
    path: "/v1/tenants/{tenant}/limits",
    summary: "Changes what is named; null takes a limit away. An operator may change all of it, a tenant's admin quotas.over_quota.",
    access: "admin",
    params: ofTenant,
    body: z.strictObject({ limits: limits.optional(), quotas: quotas.optional(), retention_days: retentionDays.optional() }),
    answer: kept,
    errors: [...WRITES, "too_many_classes"],
  }),
  audit: endpoint({
    id: "audit",
    method: "get",
    path: "/v1/audit",
    summary:
      "Who did what, when and from where, newest first. A tenant's key sees what was done to its account and the warnings about its quotas, an operator's everything.",
    access: "admin",
    query: z.strictObject({
      tenant: tenantName.optional(),
      who: z.string().max(200).optional().describe("Part of who did it."),
      what: z.string().max(64).optional().describe("The kind of an event, such as `key_revoked`."),
      since: time.optional(),
      until: time.optional(),
      before: z.coerce.number().pipe(z.int().min(1)).optional().describe("The cursor of an earlier answer."),
      limit,
    }),
    answer: z.object({ entries: z.array(entry), cursor: z.int().nullable().describe("Where to go on; null at the end.") }),
    errors: ["stream_unavailable"],
  }),
} as const;

export type ShownKey = z.infer<typeof key>;
export type ShownTenant = z.infer<typeof tenant>;
export type ShownErasure = z.infer<typeof erasure>;
export type ShownLimits = z.infer<typeof kept>;

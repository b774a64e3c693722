// Every HTTP endpoint, whom it lets in, and credentials that must not open it.

import { newKey } from "../../lib/accounts/keys.ts";
import type { Scope } from "../../lib/base/principal.ts";
import type { Keys } from "./keys.ts";
import { ME } from "./keys.ts";

export const ACME = "walls-acme";
export const OTHER = "walls-other";
export const TENANTS = [ACME, OTHER, "walls-off", "walls-gone"] as const;
/** Stands in a path for a key of acme's that nobody uses. */
export const SPARE = "{spare}";

export type Where = "gateway" | "query" | "scheduler";
/** Whom an endpoint lets in. `own` is an admin of the tenant in its path. */
export type Access = "key" | "ingest" | "query" | "query|admin" | "admin" | "own" | "operator";
/** Where, what, whom it lets in, its answer to them, a body that is worth an attack. Calls that are let in go in this order. */
export type Line = readonly [where: Where, method: string, path: string, access: Access, status: number, body?: unknown];

const OF_ACME = `/v1/tenants/${ACME}`;
export const LINES: readonly Line[] = [
  ["gateway", "POST", "/v1/ingest", "ingest", 200, '{"message":"a"}'],
  ["query", "POST", "/v1/query", "query", 200, "SELECT count() AS n FROM logs"],
  ["query", "GET", "/v1/receipts/01JGK000000000000000000000", "query", 404],
  ["query", "GET", "/v1/tail?format=nonsense", "query", 400],
  ["query", "GET", "/v1/whoami", "key", 200],
  ["query", "GET", "/v1/usage", "query|admin", 200],
  ["query", "GET", "/v1/usage/what-if?bytes_per_day=1", "query|admin", 200],
  ["query", "GET", "/v1/audit", "admin", 200],
  ["query", "GET", OF_ACME, "own", 200],
  ["query", "GET", `${OF_ACME}/limits`, "own", 200],
  ["query", "PATCH", `${OF_ACME}/limits`, "own", 200, { quotas: { over_quota: "drop" } }],
  ["query", "GET", `${OF_ACME}/keys`, "own", 200],
  ["query", "POST", `${OF_ACME}/keys`, "own", 201, { scopes: ["query"] }],
  ["query", "PATCH", `${OF_ACME}/keys/${SPARE}`, "own", 200, { label: "attack" }],
  ["query", "PATCH", `${OF_ACME}/keys/${SPARE}/limits`, "own", 200, { queries_at_once: 1 }],
  ["query", "POST", `${OF_ACME}/keys/${SPARE}/rotate`, "own", 201, {}],
  ["query", "DELETE", `${OF_ACME}/keys/${SPARE}`, "own", 200],
  ["query", "GET", "/v1/tenants", "operator", 200],
  ["query", "POST", "/v1/tenants", "operator", 201, { tenant: "walls-new" }],
  ["query", "PATCH", OF_ACME, "operator", 200, { title: "attack" }],
  ["query", "POST", `${OF_ACME}/disable`, "operator", 200, { reason: "attack" }],
  ["query", "POST", `${OF_ACME}/enable`, "operator", 200],
  ["query", "DELETE", OF_ACME, "operator", 200],
  ["query", "GET", `${OF_ACME}/certificate`, "operator", 200],
  ["scheduler", "GET", "/v1/jobs", "operator", 200],
  ["scheduler", "GET", "/v1/rebuild", "operator", 404],
  ["scheduler", "POST", "/v1/rebuild", "operator", 400, { nonsense: 1 }],
  ["scheduler", "DELETE", "/v1/rebuild", "operator", 404],
  ["scheduler", "GET", "/v1/generations", "operator", 200],
  ["scheduler", "POST", "/v1/generations/0/flip", "operator", 400],
  ["scheduler", "DELETE", "/v1/generations/0", "operator", 400],
  ["scheduler", "GET", "/v1/archive/tables", "operator", 200],
  ["scheduler", "POST", "/v1/archive/tables", "operator", 400, {}],
  ["scheduler", "DELETE", "/v1/archive/tables/-", "operator", 404],
  ["scheduler", "GET", "/v1/dead-letters", "operator", 200],
  ["scheduler", "GET", "/v1/dead-letters/1", "operator", 404],
  ["scheduler", "POST", "/v1/dead-letters/retry", "operator", 200, { all: true }],
  ["scheduler", "POST", "/v1/dead-letters/drop", "operator", 200, { all: true }],
];
/** Open on every process, and on the query service. */
export const OPEN: readonly string[] = ["/healthz", "/readyz", "/metrics"];
export const OPEN_DOCUMENTS: readonly string[] = ["/openapi.json", "/docs"];
/** Answered to whatever method there is none for, whoever asks. */
export const NO_METHOD: readonly [Where, string][] = [
  ["gateway", "/v1/ingest"],
  ["query", "/v1/query"],
];

type Headers = Readonly<Record<string, string>>;
const ALL: readonly Scope[] = ["ingest", "query", "admin"];
/** Whose the keys are that are somebody's. */
export const SOMEBODY: Readonly<Record<string, { tenant: string; scopes: readonly Scope[]; operator?: boolean }>> = {
  ingest: { tenant: ACME, scopes: ["ingest"] },
  query: { tenant: ACME, scopes: ["query"] },
  admin: { tenant: ACME, scopes: ["admin"] },
  "ingest and query": { tenant: ACME, scopes: ["ingest", "query"] },
  "every scope": { tenant: ACME, scopes: ALL },
  "another tenant's": { tenant: OTHER, scopes: ALL },
  "an operator's without admin": { tenant: OTHER, scopes: ["ingest", "query"], operator: true },
};

export interface Credentials {
  /** Name -> a key that is nobody's. */
  readonly keys: Readonly<Record<string, string>>;
  /** Name -> headers; nobody's. */
  readonly nobody: ReadonlyMap<string, Headers>;
  /** By the names of SOMEBODY; the last one was made last. */
  readonly somebody: ReadonlyMap<string, Headers>;
  /** Every key that was made. */
  readonly secrets: readonly string[];
  /** Id of the key that SPARE stands for. */
  readonly spare: string;
  /** When the last of them has ended. */
  readonly expiredMs: number;
}

const EXPIRES_MS = 1_000;
const bearer = (key: string): Headers => ({ authorization: `Bearer ${key}` });

/** Keys that are nobody's, made from a valid one. */
function badKeys(good: { id: string; key: string; hash: string }, ended: Readonly<Record<string, string>>): Record<string, string> {
  const stranger = newKey().key;
  return {
    unknown: stranger,
    "the right id with another secret": `relog_${good.id}_${stranger.split("_")[2]}`,
    "one character off": `${good.key.slice(0, -2)}${good.key.at(-2) === "a" ? "b" : "a"}${good.key.at(-1)}`,
    "cut short": good.key.slice(0, -1),
    "with more behind": `${good.key}a`,
    "in capitals": good.key.toUpperCase(),
    "an id alone": good.id,
    "a hash": good.hash,
    "the id of the bootstrap key": "env",
    malformed: "relog__",
    long: "x".repeat(8_000),
    ...ended,
  };
}

/** What a request may carry that is no valid key. */
function carried(good: { key: string }, keys: Readonly<Record<string, string>>): Map<string, Headers> {
  const stranger = newKey().key;
  const nobody = new Map<string, Headers>([
    ["none", {}],
    ["an empty X-API-Key", { "x-api-key": "" }],
    ["an empty Authorization", { authorization: "" }],
    ["Bearer without a key", { authorization: "Bearer" }],
    ["Basic", { authorization: `Basic ${Buffer.from(`relog:${good.key}`).toString("base64")}` }],
    ["two keys at once", bearer(`${good.key} ${good.key}`)],
    ["a cookie", { cookie: `key=${good.key}; x-api-key=${good.key}` }],
    ["other headers", { "x-relog-key": good.key, "proxy-authorization": `Bearer ${good.key}`, "relog-key": good.key }],
    ["a wrong one before a right one", { ...bearer(stranger), "x-api-key": good.key }],
  ]);
  for (const [name, key] of Object.entries(keys)) {
    nobody.set(name, bearer(key));
    nobody.set(`${name}, as X-API-Key`, { "x-api-key": key });
  }
  return nobody;
}

/** Makes the tenants, ends one key in each way there is, and makes keys that are good for something. */
export async function makeCredentials(keys: Keys): Promise<Credentials> {
  const secrets: string[] = [];
  async function make(tenant: string, scopes = ALL, expiresMs: number | null = null, operator = false) {
    const made = newKey();
    await keys.run(tenant, { type: "create_key", key: made.id, hash: made.hash, label: "", scopes, expiresMs, operator }, ME);
    secrets.push(made.key);
    return made;
  }
  for (const tenant of TENANTS) await keys.tenant(tenant);
  const expiredMs = Date.now() + EXPIRES_MS;
  const expired = await make(ACME, ALL, expiredMs);
  const [good, spare, revoked] = [await make(ACME), await make(ACME), await make(ACME)];
  const [off, gone] = [await make("walls-off"), await make("walls-gone")];
  await keys.run(ACME, { type: "revoke_key", key: revoked.id, reason: "" }, ME);
  await keys.run("walls-off", { type: "disable_tenant", reason: "" }, ME);
  await keys.run("walls-gone", { type: "delete_tenant", reason: "" }, ME);
  const ended = {
    expired: expired.key,
    revoked: revoked.key,
    "of a disabled tenant": off.key,
    "of a deleted tenant": gone.key,
  };
  const somebody = new Map<string, Headers>();
  for (const [name, { tenant, scopes, operator }] of Object.entries(SOMEBODY))
    somebody.set(name, bearer((await make(tenant, scopes, null, operator)).key));
  const bad = badKeys(good, ended);
  return { keys: bad, nobody: carried(good, bad), somebody, secrets, spare: spare.id, expiredMs };
}

/** The status that a key of SOMEBODY gets; undefined when it is let in. */
export function refusal(access: Access, { tenant, scopes, operator = false }: (typeof SOMEBODY)[string]): 403 | 404 | undefined {
  switch (access) {
    case "key":
      return undefined;
    case "query|admin":
      return scopes.includes("query") || scopes.includes("admin") ? undefined : 403;
    case "operator":
      return operator && scopes.includes("admin") ? undefined : 403;
    case "own":
      if (!scopes.includes("admin")) return 403;
      return tenant === ACME ? undefined : 404;
    default:
      return scopes.includes(access) ? undefined : 403;
  }
}

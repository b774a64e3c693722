// The accounts over HTTP: tenants, keys, limits, audit.
//
// Promises: operators reach every tenant; the key of a tenant with the scope "admin" reads its account and manages its keys, and
// learns nothing of others, not even whether they are there; a key's secret is in the one answer that made it.

import { Hono } from "hono";
import { serveEndpoint } from "../base/endpoint.ts";
import { messageOf, RelogError } from "../base/errors.ts";
import { Bound } from "../base/loop.ts";
import type { Authenticate, Principal } from "../base/principal.ts";
import type { Account } from "./account.ts";
import type { Actor, Run } from "./accounts.ts";
import type { AuditFilter, AuditPorts } from "./audit.ts";
import { readAudit } from "./audit.ts";
import type { Directory } from "./directory.ts";
import { ENDPOINTS as E } from "./endpoints.ts";
import { newKey } from "./keys.ts";
import { shownErasure, shownKey, shownLimits, shownTenant } from "./show.ts";

export interface AccountsApiPorts {
  readonly directory: Pick<Directory, "known" | "accounts">;
  /** Whether every account was read: before that there is no telling what is not there. */
  ready(): boolean;
  readonly run: Run;
  readonly audit: AuditPorts;
  /** When keys were last used, in milliseconds since the epoch. */
  lastUsed(keyIds: readonly string[]): Promise<ReadonlyMap<string, number>>;
  nowMs(): number;
  /** This process and its machine, for the audit. */
  readonly where: string;
}

/** Readings of the audit at once: each may read thousands of messages. */
const AUDITS_MAX = 4;

/** The endpoints of lib/accounts/endpoints.ts. */
export function accountsApi(known: Authenticate, ports: AccountsApiPorts): Hono {
  const app = new Hono();
  const authenticate: Authenticate = (credential) => {
    if (!ports.ready()) throw new RelogError("not_ready", "the accounts are not read yet", { retryAfterS: 1 });
    return known(credential);
  };
  serveEndpoint(app, authenticate, E.whoAmI, ({ principal: { tenant, keyId, scopes, operator = false } }) => ({
    tenant,
    key: keyId,
    scopes,
    operator,
  }));
  tenantRoutes(app, authenticate, ports);
  keyRoutes(app, authenticate, ports);
  auditRoute(app, authenticate, ports);
  return app;
}

/** @throws RelogError not_found also for another's tenant, so that nobody learns which there are */
function reached(principal: Principal, tenant: string): void {
  if (principal.operator !== true && principal.tenant !== tenant)
    throw new RelogError("not_found", `there is no tenant "${tenant}" that this key reaches`);
}

function present({ directory }: AccountsApiPorts, principal: Principal, tenant: string): Account {
  reached(principal, tenant);
  const { account } = directory.known(tenant);
  if (account.status === "absent")
    throw new RelogError("not_found", `there is no tenant "${tenant}"${principal.operator === true ? "" : " that this key reaches"}`);
  return account;
}

function actorOf({ where }: AccountsApiPorts, { tenant, keyId, operator = false }: Principal, client: string): Actor {
  return { who: `key ${keyId} of ${tenant}`, where: client === "" ? where : `${where}, client ${client}`, operator };
}

function tenantRoutes(app: Hono, authenticate: Authenticate, ports: AccountsApiPorts): void {
  const { run, nowMs, directory } = ports;
  const shown = (account: Account) => shownTenant(account, nowMs());
  serveEndpoint(app, authenticate, E.listTenants, ({ query: { after, limit, deleted } }) => {
    const all = directory.accounts().filter(({ tenant, status }) => tenant > after && (deleted === "true" || status !== "deleted"));
    const tenants = all.slice(0, limit).map(shown);
    return { tenants, cursor: all.length > limit ? tenants.at(-1)!.tenant : null };
  });
  serveEndpoint(app, authenticate, E.createTenant, async ({ principal, body: { tenant, title }, client }) =>
    shown(await run(tenant, { type: "create_tenant", title }, actorOf(ports, principal, client))),
  );
  serveEndpoint(app, authenticate, E.getTenant, ({ principal, params: { tenant } }) => shown(present(ports, principal, tenant)));
  serveEndpoint(app, authenticate, E.renameTenant, async ({ principal, params: { tenant }, body: { title }, client }) =>
    shown(await run(tenant, { type: "rename_tenant", title }, actorOf(ports, principal, client))),
  );
  serveEndpoint(app, authenticate, E.disableTenant, async ({ principal, params: { tenant }, body: { reason }, client }) =>
    shown(await run(tenant, { type: "disable_tenant", reason }, actorOf(ports, principal, client))),
  );
  serveEndpoint(app, authenticate, E.enableTenant, async ({ principal, params: { tenant }, client }) =>
    shown(await run(tenant, { type: "enable_tenant" }, actorOf(ports, principal, client))),
  );
  serveEndpoint(app, authenticate, E.deleteTenant, async ({ principal, params: { tenant }, query: { reason }, client }) =>
    shown(await run(tenant, { type: "delete_tenant", reason }, actorOf(ports, principal, client))),
  );
  serveEndpoint(app, authenticate, E.getCertificate, ({ principal, params: { tenant } }) =>
    shownErasure(present(ports, principal, tenant)),
  );
  serveEndpoint(app, authenticate, E.getLimits, ({ principal, params: { tenant } }) => shownLimits(present(ports, principal, tenant)));
  serveEndpoint(app, authenticate, E.setLimits, async ({ principal, params: { tenant }, body, client }) => {
    reached(principal, tenant);
    const { limits, quotas, retention_days: retentionDays } = body;
    return shownLimits(await run(tenant, { type: "set_limits", limits, quotas, retentionDays }, actorOf(ports, principal, client)));
  });
}

function keyRoutes(app: Hono, authenticate: Authenticate, ports: AccountsApiPorts): void {
  const { run, nowMs } = ports;
  const one = (account: Account, id: string) => shownKey(account.keys.get(id)!, nowMs(), undefined);
  serveEndpoint(app, authenticate, E.listKeys, async ({ principal, params: { tenant } }) => {
    const keys = [...present(ports, principal, tenant).keys.values()].reverse();
    // That nobody can say now when a key was used is no reason not to say which keys there are.
    const used = await ports.lastUsed(keys.map(({ id }) => id)).catch((): ReadonlyMap<string, number> => new Map());
    return { keys: keys.map((key) => shownKey(key, nowMs(), used.get(key.id))) };
  });
  serveEndpoint(app, authenticate, E.createKey, async ({ principal, params: { tenant }, body, client }) => {
    present(ports, principal, tenant);
    const { label, scopes, operator } = body;
    const made = newKey();
    const expiresMs = body.expires === null ? null : Date.parse(body.expires);
    const facts = { key: made.id, hash: made.hash, label, scopes, expiresMs, operator };
    const account = await run(tenant, { type: "create_key", ...facts }, actorOf(ports, principal, client));
    return { ...one(account, made.id), key: made.key };
  });
  serveEndpoint(app, authenticate, E.changeKey, async ({ principal, params: { tenant, key }, body: { label, expires }, client }) => {
    present(ports, principal, tenant);
    const expiresMs = expires === undefined || expires === null ? expires : Date.parse(expires);
    return one(await run(tenant, { type: "change_key", key, label, expiresMs }, actorOf(ports, principal, client)), key);
  });
  serveEndpoint(app, authenticate, E.rotateKey, async ({ principal, params: { tenant, key }, body, client }) => {
    present(ports, principal, tenant);
    const next = newKey();
    const command = { type: "rotate_key", key, next: next.id, hash: next.hash, graceMs: body.grace_s * 1_000 } as const;
    return { ...one(await run(tenant, command, actorOf(ports, principal, client)), next.id), key: next.key };
  });
  serveEndpoint(app, authenticate, E.limitKey, async ({ principal, params: { tenant, key }, body: limits, client }) => {
    present(ports, principal, tenant);
    return one(await run(tenant, { type: "limit_key", key, limits }, actorOf(ports, principal, client)), key);
  });
  serveEndpoint(app, authenticate, E.revokeKey, async ({ principal, params: { tenant, key }, query: { reason }, client }) => {
    present(ports, principal, tenant);
    return one(await run(tenant, { type: "revoke_key", key, reason }, actorOf(ports, principal, client)), key);
  });
}

function auditRoute(app: Hono, authenticate: Authenticate, ports: AccountsApiPorts): void {
  const readings = new Bound(AUDITS_MAX);
  serveEndpoint(app, authenticate, E.audit, async ({ principal, query }) => {
    const { who, what, since, until, before, limit } = query;
    if (query.tenant !== undefined) reached(principal, query.tenant);
    const own = principal.operator === true ? { tenant: query.tenant } : { tenant: principal.tenant, accountsOnly: true };
    const ms = (time: string | undefined): number | undefined => (time === undefined ? undefined : Date.parse(time));
    const filter: AuditFilter = { ...own, who, what, sinceMs: ms(since), untilMs: ms(until) };
    if (!readings.tryTake(1))
      throw new RelogError("too_many_requests", `${AUDITS_MAX} readings of the audit are running`, { retryAfterS: 1 });
    try {
      const { entries, cursor } = await readAudit(ports.audit, filter, { before, limit });
      return { entries, cursor: cursor ?? null };
    } catch (cause) {
      if (cause instanceof RelogError) throw cause;
      throw new RelogError("stream_unavailable", `the audit cannot be read now: ${messageOf(cause)}`, { cause, retryAfterS: 2 });
    } finally {
      readings.give(1);
    }
  });
}

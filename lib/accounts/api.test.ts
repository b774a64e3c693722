// The accounts over HTTP, without a socket: who may do what, what is answered, what is never said.

import { Hono } from "hono";
import { beforeEach, expect, it } from "vitest";
import type { ZodType } from "zod";
import { withContractErrors } from "../base/http.ts";
import { createTelemetry } from "../base/telemetry.ts";
import { accountsApi } from "./api.ts";
import { authenticator } from "./authenticate.ts";
import { accountsDocument } from "./document.ts";
import { ENDPOINTS } from "./endpoints.ts";
import { MemoryLog, memoryAccounts, T0 } from "./testing.ts";

// biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
type Answer = { status: number; body: any };

const BOOT = "boot";
let log: MemoryLog;
let clock: { ms: number };
let app: Hono;
let used: Map<string, number>;

beforeEach(() => {
  [log, clock, used] = [new MemoryLog(), { ms: T0 }, new Map()];
  const { directory, run } = memoryAccounts(log, clock);
  const authenticate = authenticator(
    { key: BOOT, tenant: "default" },
    directory,
    () => true,
    (id) => used.set(id, clock.ms),
  );
  const ports = {
    directory,
    run,
    ready: () => true,
    audit: log.audit,
    lastUsed: async () => used,
    nowMs: () => clock.ms,
    where: "query@test",
  };
  app = withContractErrors(new Hono().route("/", accountsApi(authenticate, ports)), createTelemetry("test", "silent", false).log);
});

async function call(key: string | undefined, line: string, body?: unknown): Promise<Answer> {
  const [method = "", path = ""] = line.split(" ");
  const headers: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
  const init = { method, headers, ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }) };
  const answer = await app.request(path, init);
  return { status: answer.status, body: await answer.json() };
}

async function made(tenant: string, scopes: string[], more: object = {}): Promise<{ id: string; key: string }> {
  await call(BOOT, "POST /v1/tenants", { tenant });
  const { status, body } = await call(BOOT, `POST /v1/tenants/${tenant}/keys`, { scopes, ...more });
  expect(status).toBe(201);
  return body;
}

it("a tenant, a key, a rotation, a revocation, and the audit of it", async () => {
  expect(await call(BOOT, "POST /v1/tenants", { tenant: "acme", title: "Acme" })).toMatchObject({
    status: 201,
    body: { tenant: "acme", status: "active", keys: 0 },
  });
  const first = (
    await call(BOOT, "POST /v1/tenants/acme/keys", { label: "ci", scopes: ["ingest", "admin"], expires: "2026-02-01T00:00:00+01:00" })
  ).body;
  expect(first).toMatchObject({
    label: "ci",
    state: "live",
    expires: "2026-01-31T23:00:00.000Z",
    created_by: "key env of default",
    key: expect.stringMatching(/^relog_/),
  });
  expect((await call(first.key, "GET /v1/whoami")).body).toEqual({
    tenant: "acme",
    key: first.id,
    scopes: ["ingest", "admin"],
    operator: false,
  });
  const next = (await call(first.key, `POST /v1/tenants/acme/keys/${first.id}/rotate`, { grace_s: 60 })).body;
  expect(next).toMatchObject({ replaces: first.id, label: "ci", scopes: ["ingest", "admin"] });
  const { keys } = (await call(next.key, "GET /v1/tenants/acme/keys")).body;
  expect(keys.map((one: { id: string; state: string; last_used: string | null }) => [one.id, one.state, one.last_used])).toEqual([
    [next.id, "live", "2026-01-02T03:04:05.000Z"],
    [first.id, "live", "2026-01-02T03:04:05.000Z"],
  ]);
  clock.ms += 60_000;
  expect(await call(first.key, "GET /v1/whoami")).toMatchObject({ status: 401, body: { error: { code: "unauthenticated" } } });
  expect(await call(BOOT, `DELETE /v1/tenants/acme/keys/${next.id}?reason=leaked`)).toMatchObject({
    status: 200,
    body: { state: "revoked" },
  });
  expect(await call(next.key, "GET /v1/whoami")).toMatchObject({ status: 401 });
  const { entries } = (await call(BOOT, "GET /v1/audit?tenant=acme")).body;
  expect(entries.map((one: { what: string }) => one.what)).toEqual([
    "key_revoked",
    "key_created",
    "key_changed",
    "key_created",
    "tenant_created",
  ]);
  expect(entries[0]).toMatchObject({
    who: "key env of default",
    where: "query@test",
    time: "2026-01-02T03:05:05.000Z",
    data: { key: next.id, reason: "leaked" },
  });
  const everything = JSON.stringify([entries, keys]);
  expect(everything).not.toContain("hash");
  expect(log.messages.some(({ payload }) => Buffer.from(payload).includes(next.key.slice(-52)))).toBe(false);
});

it("a key that is revoked between the headers of a call and its body does nothing any more", async () => {
  const { id, key } = await made("acme", ["admin"]);
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        expect((await call(BOOT, `DELETE /v1/tenants/acme/keys/${id}`)).status).toBe(200);
        controller.enqueue(Buffer.from('{"scopes":["admin"]}'));
        controller.close();
      },
    },
    { highWaterMark: 0 },
  );
  const headers = { authorization: `Bearer ${key}` };
  const answer = await app.request("/v1/tenants/acme/keys", { method: "POST", headers, body, duplex: "half" } as RequestInit);
  expect(answer.status).toBe(401);
  expect((await call(BOOT, "GET /v1/tenants/acme/keys")).body.keys).toHaveLength(1);
});

it.each<[who: string, line: string, body: unknown, status: number, code: string]>([
  ["nobody", "GET /v1/whoami", undefined, 401, "unauthenticated"],
  ["wrong", "GET /v1/tenants", undefined, 401, "unauthenticated"],
  ["reader", "GET /v1/tenants/acme", undefined, 403, "forbidden"],
  ["reader", "POST /v1/tenants/acme/keys", { scopes: ["admin"] }, 403, "forbidden"],
  ["admin", "GET /v1/tenants", undefined, 403, "forbidden"],
  ["admin", "POST /v1/tenants", { tenant: "mine" }, 403, "forbidden"],
  ["admin", "PATCH /v1/tenants/acme/limits", { limits: { queries_at_once: 5 } }, 403, "forbidden"],
  ["admin", "DELETE /v1/tenants/acme", undefined, 403, "forbidden"],
  ["admin", "POST /v1/tenants/acme/disable", {}, 403, "forbidden"],
  ["admin", "POST /v1/tenants/acme/keys", { scopes: ["admin"], operator: true }, 403, "forbidden"],
  ["admin", "GET /v1/tenants/other", undefined, 404, "not_found"],
  ["admin", "GET /v1/tenants/nobody", undefined, 404, "not_found"],
  ["admin", "GET /v1/tenants/other/keys", undefined, 404, "not_found"],
  ["admin", "POST /v1/tenants/other/keys", { scopes: ["query"] }, 404, "not_found"],
  ["admin", "GET /v1/audit?tenant=other", undefined, 404, "not_found"],
  ["boot", "GET /v1/tenants/nobody", undefined, 404, "not_found"],
  ["boot", "POST /v1/tenants", { tenant: "acme" }, 409, "tenant_exists"],
  ["boot", "POST /v1/tenants", { tenant: "A" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants", { tenant: "unknown" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants", { tenant: "x".repeat(64) }, 400, "bad_request"],
  ["boot", "POST /v1/tenants", { tenant: "a.b" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants", { tenant: "a\u0000" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants", { tenant: "__proto__" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants", { tenant: "x", more: 1 }, 400, "bad_request"],
  ["boot", "POST /v1/tenants", "{", 400, "bad_request"],
  ["boot", "POST /v1/tenants", { tenant: "x", title: "x".repeat(70_000) }, 413, "body_too_large"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: [] }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["query", "query"] }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["root"] }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["query"], label: "\u001b[31m" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["query"], label: "a\u202eb" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["query"], label: "a\nb" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["query"], label: "x".repeat(201) }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["query"], expires: "2020-01-01T00:00:00Z" }, 400, "bad_request"],
  ["boot", "POST /v1/tenants/acme/keys", { scopes: ["query"], expires: "tomorrow" }, 400, "bad_request"],
  ["boot", "DELETE /v1/tenants/acme/keys/nonsense", undefined, 400, "bad_request"],
  ["boot", "DELETE /v1/tenants/acme/keys/aaaaaaaaaaaaaaaa", undefined, 404, "not_found"],
  ["boot", "PATCH /v1/tenants/acme/limits", { limits: { queries_at_once: 0 } }, 400, "bad_request"],
  ["boot", "PATCH /v1/tenants/acme/limits", { limits: { nonsense: 1 } }, 400, "bad_request"],
  ["boot", "PATCH /v1/tenants/acme/limits", { quotas: { time_zone: "Mars/Base" } }, 400, "bad_request"],
  ["boot", "PATCH /v1/tenants/acme/limits", { quotas: { over_quota: "lose" } }, 400, "bad_request"],
  ["admin", "PATCH /v1/tenants/b/limits", { quotas: { over_quota: "drop" } }, 404, "not_found"],
  ["boot", "GET /v1/tenants?limit=0", undefined, 400, "bad_request"],
  ["boot", "GET /v1/tenants?limit=1&limit=2", undefined, 400, "bad_request"],
  ["boot", "GET /v1/audit?before=x", undefined, 400, "bad_request"],
  ["boot", "GET /v1/audit?nonsense=x", undefined, 400, "bad_request"],
])("%s: %s %j is answered %i %s", async (who, line, body, status, code) => {
  const [admin, reader] = [await made("acme", ["admin"]), await made("acme", ["query"])];
  await made("other", ["admin"]);
  const keys: Record<string, string | undefined> = { boot: BOOT, admin: admin.key, reader: reader.key, wrong: "wrong" };
  const answer = await call(keys[who], line, body);
  expect([answer.status, answer.body.error?.code]).toEqual([status, code]);
  expect(JSON.stringify(answer.body)).not.toMatch(/hash|\\u001b/);
});

it("an admin sees its own account's audit, and of operators' keys only that they are there", async () => {
  await made("other", ["query"]);
  const operator = await made("acme", ["admin"], { operator: true });
  const admin = await made("acme", ["admin"], { label: "Grüße 世界 👩‍🚀" });
  log.append("control.operations", {
    id: "x",
    time: new Date(T0).toISOString(),
    what: "dead_letters_dropped",
    who: "key env of default",
    where: "h",
    letters: Array(500).fill({ a: "b".repeat(50) }),
  });
  log.append("control.operations", "nonsense");
  const own = (await call(admin.key, "GET /v1/audit")).body.entries as { tenant: string; what: string }[];
  expect(own.map(({ tenant, what }) => [tenant, what])).toEqual([
    ["acme", "key_created"],
    ["acme", "key_created"],
    ["acme", "tenant_created"],
  ]);
  expect(await call(admin.key, `DELETE /v1/tenants/acme/keys/${operator.id}`)).toMatchObject({ status: 403 });
  expect(await call(admin.key, `POST /v1/tenants/acme/keys/${operator.id}/rotate`, {})).toMatchObject({ status: 403 });
  const all = (await call(operator.key, "GET /v1/audit?limit=2")).body;
  expect(all.entries.map(({ what }: { what: string }) => what)).toEqual(["unreadable", "dead_letters_dropped"]);
  expect(all.entries[1].data).toEqual({ letters: { count: 500 } });
  const rest = (await call(operator.key, `GET /v1/audit?before=${all.cursor}&who=env&what=key_created`)).body;
  expect([rest.entries.length, rest.cursor]).toEqual([3, null]);
});

it("an admin reads the warnings about its own quotas", async () => {
  const [admin, other] = [await made("acme", ["admin"]), await made("other", ["admin"])];
  const facts = { percent: 80, quota: "records_per_day", limit: 10, used: 8 };
  const head = {
    version: 1,
    id: "w",
    time: new Date(T0).toISOString(),
    tenant: "acme",
    what: "quota_warning",
    who: "relog",
    where: "here",
  };
  log.append("control.quotas.acme.records_per_day.20260102T000000Z.80", { ...head, ...facts });
  const read = async (key: string) => (await call(key, "GET /v1/audit?what=quota_warning")).body.entries;
  expect(await read(admin.key)).toEqual([expect.objectContaining({ tenant: "acme", what: "quota_warning", who: "relog", data: facts })]);
  expect([await read(other.key), (await read(BOOT!)).length]).toEqual([[], 1]);
});

it("pages of tenants; a deleted one is shown when asked for, and its name is gone", async () => {
  for (const tenant of ["c", "a", "b"]) await call(BOOT, "POST /v1/tenants", { tenant });
  const first = (await call(BOOT, "GET /v1/tenants?limit=2")).body;
  expect([first.tenants.map((one: { tenant: string }) => one.tenant), first.cursor]).toEqual([["a", "b"], "b"]);
  expect((await call(BOOT, "GET /v1/tenants?after=b")).body).toMatchObject({ tenants: [{ tenant: "c" }], cursor: null });
  expect(await call(BOOT, "DELETE /v1/tenants/a?reason=left")).toMatchObject({ status: 200, body: { status: "deleted" } });
  expect((await call(BOOT, "GET /v1/tenants")).body.tenants).toHaveLength(2);
  expect((await call(BOOT, "GET /v1/tenants?deleted=true")).body.tenants[0]).toMatchObject({
    tenant: "a",
    status: "deleted",
    reason: "left",
  });
  expect(await call(BOOT, "POST /v1/tenants", { tenant: "a" })).toMatchObject({ status: 409, body: { error: { code: "tenant_deleted" } } });
  expect((await call(BOOT, "PATCH /v1/tenants/b/limits", { limits: { queries_at_once: 2 }, retention_days: 30 })).body).toEqual({
    limits: { queries_at_once: 2 },
    quotas: {},
    retention_days: 30,
  });
});

it("every answer is what the document says; the document names every endpoint", async () => {
  const answers: [keyof typeof ENDPOINTS, Answer][] = [
    ["createTenant", await call(BOOT, "POST /v1/tenants", { tenant: "acme" })],
    ["createKey", await call(BOOT, "POST /v1/tenants/acme/keys", { scopes: ["query"] })],
    ["listKeys", await call(BOOT, "GET /v1/tenants/acme/keys")],
    ["listTenants", await call(BOOT, "GET /v1/tenants")],
    ["getTenant", await call(BOOT, "GET /v1/tenants/acme")],
    ["getLimits", await call(BOOT, "GET /v1/tenants/acme/limits")],
    ["audit", await call(BOOT, "GET /v1/audit")],
    ["whoAmI", await call(BOOT, "GET /v1/whoami")],
  ];
  for (const [name, { status, body }] of answers) {
    const { answer, status: wanted = 200 } = ENDPOINTS[name] as { answer: ZodType; status?: number };
    expect([name, status, answer.safeParse(body).error]).toEqual([name, wanted, undefined]);
  }
  const document = accountsDocument();
  const ids = Object.values(document.paths).flatMap((path) => Object.values(path).map(({ operationId }) => operationId));
  expect(ids.sort()).toEqual(Object.keys(ENDPOINTS).sort());
  expect(document.paths["/v1/tenants"]!.post).toMatchObject({
    requestBody: { content: { "application/json": { schema: { required: ["tenant"], additionalProperties: false } } } },
  });
  for (const [path, methods] of Object.entries(document.paths))
    for (const { parameters } of Object.values(methods))
      expect(parameters.filter((one) => one.in === "path").map(({ name }) => `{${name}}`)).toEqual(path.match(/\{\w+\}/g) ?? []);
});

// Usage over HTTP on a real engine: the contract, two tenants, who may see what, and what is said while an engine is away.

import { Hono } from "hono";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import type { ZodType } from "zod";
import { RelogError } from "../base/errors.ts";
import { withContractErrors } from "../base/http.ts";
import type { Principal, Scope } from "../base/principal.ts";
import { createTelemetry } from "../base/telemetry.ts";
import { startStack } from "../devstack/stack.ts";
import type { ClickHouse } from "../store/client.ts";
import { openClickHouse } from "../store/client.ts";
import { migrate, readMigrations } from "../store/migrate.ts";
import type { UsageStore } from "../store/usage.ts";
import { usageStore } from "../store/usage.ts";
import type { CurrentWindows } from "./answer.ts";
import { usageApi } from "./api.ts";
import { USAGE_ENDPOINTS } from "./endpoints.ts";
import type { QuotaAmounts } from "./quotas.ts";

// biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
type Answer = { status: number; body: any };

/** A Monday, ten o'clock. */
const NOW = Date.parse("2026-03-02T10:00:00Z");
const ACCOUNTS: Readonly<Record<string, { quotas: QuotaAmounts; zone: string }>> = {
  acme: { quotas: { records_per_day: 100, bytes_per_month: 1_000 }, zone: "Europe/Berlin" },
  zeta: { quotas: {}, zone: "UTC" },
};
const key = (tenant: string, scopes: readonly Scope[], operator = false): Principal => ({ tenant, keyId: "k", scopes, operator });
const KEYS: Readonly<Record<string, Principal>> = {
  acme: key("acme", ["query"]),
  admin: key("acme", ["admin"]),
  sender: key("acme", ["ingest"]),
  zeta: key("zeta", ["query", "admin"]),
  boss: key("zeta", ["query", "admin"], true),
};

const stack = new AsyncDisposableStack();
let clickhouse: ClickHouse;
let store: UsageStore;
let kept: CurrentWindows | undefined;
let generation: number;
let app: Hono;
beforeAll(async () => {
  clickhouse = stack.use(openClickHouse(stack.use(await startStack({ env: process.env })).clickhouse!));
  await migrate(clickhouse, readMigrations("schemas/clickhouse"), 1, "");
  // Records of four bytes: acme ten an hour since midnight of the day before, zeta one.
  await clickhouse.read({
    statement:
      "INSERT INTO relog_g1.logs (tenant, timestamp, observed_timestamp, batch, service, body) SELECT if(number < 340, 'acme', 'zeta'), " +
      "toDateTime64('2026-03-01 00:30:00', 9, 'UTC') + INTERVAL least(intDiv(number, 10), 33) HOUR AS t, t, '01J', if(number % 2 = 0, 'a', 'b'), 'abc' FROM numbers(341)",
  });
  store = usageStore(clickhouse);
  await store.create();
  await store.close(1, 0, Date.parse("2026-03-02T09:00:00Z"));
});
afterAll(() => stack.disposeAsync());
beforeEach(() => {
  [generation, kept] = [1, undefined];
  serve(store);
});

function serve(from: UsageStore): void {
  const ports = {
    store: from,
    generation: () => generation,
    account: (tenant: string) => ACCOUNTS[tenant],
    windows: () => kept,
    nowMs: () => NOW,
    ready: () => true,
  };
  const { log } = createTelemetry("test", "silent", false);
  app = withContractErrors(
    new Hono().route(
      "/",
      usageApi((credential) => KEYS[credential], ports),
    ),
    log,
  );
}

async function get(who: string, path: string): Promise<Answer> {
  const answer = await app.request(path, { headers: { authorization: `Bearer ${who}` } });
  const body = await answer.json();
  const { answer: schema } = path.includes("what-if") ? USAGE_ENDPOINTS.whatIf : USAGE_ENDPOINTS.usage;
  if (answer.status === 200) expect((schema as ZodType).parse(body)).toEqual(body);
  return { status: answer.status, body };
}

it("by day of the quotas' time zone, with what is left and when it ends", async () => {
  const { status, body } = await get("acme", "/v1/usage");
  expect(status).toBe(200);
  expect(body).toMatchObject({
    tenant: "acme",
    zone: "Europe/Berlin",
    by: "day",
    complete: true,
    note: null,
    closed_until: "2026-03-02T09:00:00.000Z",
  });
  // Midnight in Berlin is 23:00 UTC.
  expect(body.rows).toEqual([
    { from: "2026-02-28T23:00:00.000Z", to: "2026-03-01T23:00:00.000Z", records: 230, bytes: 920, closed: true },
    { from: "2026-03-01T23:00:00.000Z", to: "2026-03-02T23:00:00.000Z", records: 110, bytes: 440, closed: false },
  ]);
  expect(body.totals).toEqual({ records: 340, bytes: 1_360 });
  const [day, month] = body.quotas;
  expect(day).toEqual({
    quota: "records_per_day",
    limit: 100,
    used: 110,
    left: 0,
    window: { from: "2026-03-01T23:00:00.000Z", to: "2026-03-02T23:00:00.000Z" },
    ends: "2026-03-02T10:00:00.000Z",
  });
  expect(month).toMatchObject({
    quota: "bytes_per_month",
    used: 1_360,
    left: 0,
    window: { from: "2026-02-28T23:00:00.000Z", to: "2026-03-31T22:00:00.000Z" },
  });
});

it("by hour and service, in the zone and within the times that were asked for", async () => {
  const { body } = await get(
    "acme",
    "/v1/usage?by=hour&group=service&zone=Asia/Kathmandu&since=2026-03-02T08:20:00Z&until=2026-03-02T09:30:00%2B00:00",
  );
  // The name that every engine knows.
  expect(body.zone).toBe("Asia/Katmandu");
  expect(body.rows).toEqual([
    { from: "2026-03-02T08:15:00.000Z", to: "2026-03-02T09:15:00.000Z", service: "a", records: 5, bytes: 20, closed: false },
    { from: "2026-03-02T08:15:00.000Z", to: "2026-03-02T09:15:00.000Z", service: "b", records: 5, bytes: 20, closed: false },
  ]);
  const utc = await get("acme", "/v1/usage?by=hour&zone=utc&since=2026-03-02T07:00:00Z");
  expect(
    utc.body.rows.map(({ from, records, closed }: { from: string; records: number; closed: boolean }) => [
      from.slice(11, 16),
      records,
      closed,
    ]),
  ).toEqual([
    ["07:00", 10, true],
    ["08:00", 10, true],
    ["09:00", 10, false],
  ]);
  expect((await get("acme", "/v1/usage?by=month&zone=UTC")).body.rows).toMatchObject([{ records: 340 }]);
});

it.each<[string, string, number, string]>([
  ["sender", "/v1/usage", 403, "forbidden"],
  ["nobody", "/v1/usage", 401, "unauthenticated"],
  ["acme", "/v1/usage?tenant=zeta", 404, "not_found"],
  ["acme", "/v1/usage?tenant=nobody", 404, "not_found"],
  ["admin", "/v1/usage/what-if?tenant=zeta&records_per_day=1", 404, "not_found"],
  ["boss", "/v1/usage?tenant=nobody", 404, "not_found"],
  ["acme", "/v1/usage?tenant=a%27%20OR%201", 400, "bad_request"],
  ["acme", "/v1/usage?zone=Mars/Olympus", 400, "bad_request"],
  ["acme", "/v1/usage?zone=%2B01:00", 400, "bad_request"],
  ["acme", "/v1/usage?by=minute", 400, "bad_request"],
  ["acme", "/v1/usage?since=yesterday", 400, "bad_request"],
  ["acme", "/v1/usage?since=2026-03-02T10:00:00Z&until=2026-03-02T10:00:00Z", 400, "bad_request"],
  ["acme", "/v1/usage?who=me", 400, "bad_request"],
  ["acme", "/v1/usage/what-if", 400, "bad_request"],
  ["acme", "/v1/usage/what-if?records_per_day=0", 400, "bad_request"],
  ["acme", "/v1/usage/what-if?records_per_day=1&days=32", 400, "bad_request"],
])("%s asking %s gets %i %s", async (who, path, status, code) => {
  const answer = await get(who, path);
  expect([answer.status, answer.body.error.code]).toEqual([status, code]);
});

it("a tenant sees its own alone, and another tenant's name answers as one that is not there; an operator sees all", async () => {
  for (const who of ["acme", "admin"]) expect((await get(who, "/v1/usage?tenant=acme")).body.totals.records).toBe(340);
  expect((await get("zeta", "/v1/usage")).body).toMatchObject({ totals: { records: 1, bytes: 4 }, quotas: [] });
  const messages = await Promise.all(
    ["zeta", "nobody"].map(async (tenant) => (await get("acme", `/v1/usage?tenant=${tenant}`)).body.error.message.replace(tenant, "X")),
  );
  expect(new Set(messages).size).toBe(1);
  expect((await get("boss", "/v1/usage?tenant=acme")).body).toMatchObject({ tenant: "acme", totals: { records: 340 } });
});

it("what limits would have done", async () => {
  const { body } = await get(
    "acme",
    "/v1/usage/what-if?records_per_day=200&bytes_per_month=1000&ingest_records_per_second=1&days=2&zone=UTC",
  );
  expect(body).toMatchObject({ tenant: "acme", since: "2026-02-28T10:00:00.000Z", until: "2026-03-02T10:00:00.000Z", complete: true });
  expect(body.limits).toEqual([
    {
      limit: "records_per_day",
      value: 200,
      at_least: false,
      records: 40,
      bytes: 160,
      days: [{ day: "2026-03-01T00:00:00.000Z", hit: "2026-03-01T20:30:00.000Z", records: 40, bytes: 160 }],
    },
    {
      limit: "bytes_per_month",
      value: 1_000,
      at_least: false,
      records: 90,
      bytes: 360,
      days: [{ day: "2026-03-02T00:00:00.000Z", hit: "2026-03-02T01:30:00.000Z", records: 90, bytes: 360 }],
    },
    { limit: "ingest_records_per_second", value: 1, at_least: true, records: 0, bytes: 0, days: [] },
  ]);
});

it("the process's own windows count before the tables", async () => {
  kept = {
    day: { fromMs: NOW - 36_000_000, toMs: NOW + 36_000_000, records: 50, bytes: 1 },
    month: { fromMs: NOW - 1e9, toMs: NOW + 1e9, records: 1, bytes: 400 },
  };
  const { body } = await get("acme", "/v1/usage");
  // 240 in the last 24 hours are ten an hour, 50 in ten hours are five.
  expect(body.quotas[0]).toMatchObject({ used: 50, left: 50, ends: "2026-03-02T15:00:00.000Z" });
  expect(body.quotas[1]).toMatchObject({ used: 400, left: 600 });
});

it("a generation of before answers what is closed, and says so", async () => {
  await clickhouse.read({ statement: "CREATE DATABASE IF NOT EXISTS relog_g7" });
  await clickhouse.read({
    statement: "CREATE TABLE IF NOT EXISTS relog_g7.logs (tenant String, batch String) ENGINE = MergeTree ORDER BY batch",
  });
  generation = 7;
  const { status, body } = await get("acme", "/v1/usage");
  expect([status, body.complete, body.totals.records]).toEqual([200, false, 340]);
  expect(body.note).toContain("made before usage was counted: `relog rebuild`");
});

it("while ClickHouse is away quotas are answered from the process's windows, and nothing without them", async () => {
  const away = async (): Promise<never> => {
    throw new RelogError("store_unavailable", "ClickHouse cannot be reached");
  };
  serve({ ...store, create: away });
  expect((await get("acme", "/v1/usage")).body.error.code).toBe("store_unavailable");
  kept = {
    day: { fromMs: NOW - 36_000_000, toMs: NOW + 40_000_000, records: 50, bytes: 1 },
    month: { fromMs: NOW - 1e9, toMs: NOW + 1e9, records: 1, bytes: 400 },
  };
  const { status, body } = await get("acme", "/v1/usage");
  expect(status).toBe(200);
  expect(body).toMatchObject({
    complete: false,
    note: "ClickHouse cannot be asked: ClickHouse cannot be reached",
    rows: [],
    closed_until: null,
  });
  expect(body.quotas[0]).toMatchObject({ used: 50, left: 50, ends: "2026-03-02T20:00:00.000Z" });
  expect((await get("acme", "/v1/usage/what-if?records_per_day=1")).body.error.code).toBe("store_unavailable");
});

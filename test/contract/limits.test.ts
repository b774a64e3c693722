// Limits on running processes: each one refuses with its code, its fields and a wait after which the call passes; gateways share
// them; attributes that overflow are found again by SQL.

import { afterAll, beforeAll, expect, test } from "vitest";
import { sleep, waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { startService } from "../../lib/devstack/service.ts";
import { Installation } from "./gateway.ts";

/** A body is held for a moment while it is sent: shares are made small enough to be met. */
const SMALL = { RELOG_BYTES_IN_FLIGHT_MAX: "4MiB", RELOG_BODY_BYTES_MAX: "4MiB", RELOG_TENANT_SHARE_MAX: "50" };

let relog: Installation;
let second: Service;
let query: Service;
const owned = new AsyncDisposableStack();
beforeAll(async () => {
  relog = owned.use(await Installation.start(SMALL));
  second = owned.use(await startService("gateway", relog.stack, SMALL));
  query = owned.use(await startService("query", relog.stack, { RELOG_QUERIES_MAX: "4" }));
});
afterAll(() => owned.disposeAsync());

async function call(service: { readonly url: string }, key: string, line: string, body?: unknown) {
  const [method = "", path = ""] = line.split(" ");
  const text = typeof body === "string" || body === undefined ? body : JSON.stringify(body);
  const type = path.startsWith("/v1/tenants") ? "application/json" : path === "/v1/query" ? "text/plain" : "application/x-ndjson";
  const answer = await fetch(`${service.url}${path}`, {
    method,
    headers: { "x-api-key": key, "content-type": type },
    ...(text === undefined ? {} : { body: text }),
  });
  const raw = await answer.text();
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
  return { status: answer.status, headers: answer.headers, body: (raw.startsWith("{") ? JSON.parse(raw.split("\n")[0]!) : raw) as any };
}

interface Tenant {
  readonly name: string;
  readonly key: string;
  readonly keyId: string;
}

let tenants = 0;
/** A tenant with limits that every gateway knows. */
async function tenant(limits: object): Promise<Tenant> {
  const name = `t${++tenants}`;
  expect((await call(query, relog.key, "POST /v1/tenants", { tenant: name })).status).toBe(201);
  // Before the key: accounts arrive in their order, and a gateway that knows the key knows the limits.
  await limit({ name }, limits);
  const { body } = await call(query, relog.key, `POST /v1/tenants/${name}/keys`, { scopes: ["ingest", "query"] });
  const made = { name, key: body.key as string, keyId: body.id as string };
  for (const gateway of [relog.gateway, second])
    await waitFor("the key", async () => ((await call(gateway, made.key, "POST /v1/ingest", "")).status === 400 ? true : undefined));
  return made;
}

async function limit({ name }: Pick<Tenant, "name">, limits: object): Promise<void> {
  const { status } = await call(query, relog.key, `PATCH /v1/tenants/${name}/limits`, { limits });
  expect(status).toBe(200);
}

const ingest = (who: Tenant, body = '{"message":"m"}\n', gateway: { readonly url: string } = relog.gateway) =>
  call(gateway, who.key, "POST /v1/ingest", body);
const ask = (who: Tenant, sql: string) => call(query, who.key, "POST /v1/query", sql);
const records = (count: number): string => '{"message":"m"}\n'.repeat(count);

test.each<[name: string, body: string, value: number]>([
  ["ingest_records_per_second", records(100), 2],
  ["ingest_bytes_per_second", records(100), 20],
])("%s: a call larger than the burst passes, the next is refused with the wait", async (name, body, value) => {
  const who = await tenant({ [name]: value, burst_seconds: 1 });
  const passed = await ingest(who, body);
  expect(passed.status).toBe(200);
  const short = name.split("_")[1]!;
  expect(passed.headers.get("ratelimit-policy")).toBe(`"${short}";q=${value};qu="${short}";w=1`);
  expect(passed.headers.get("ratelimit")).toMatch(new RegExp(`^"${short}";r=0;t=\\d+$`));
  const refused = await ingest(who);
  expect(refused).toMatchObject({ status: 429, body: { error: { code: "rate_limited", limit: name, value, of: "tenant" } } });
  // What the call was in debt, and one token.
  const amount = name === "ingest_records_per_second" ? 100 : body.length;
  const waitS = (amount - value + 1) / value;
  const retryAfter = Number(refused.headers.get("retry-after"));
  expect(retryAfter).toBeLessThanOrEqual(Math.ceil(waitS));
  expect(Math.abs(refused.body.error.retry_after_ms / 1_000 - retryAfter)).toBeLessThan(1);
  expect(refused.headers.get("ratelimit")).toBe(`"${short}";r=0;t=${retryAfter}`);
  // The other gateway never saw a call of the tenant's, and has heard of it.
  await waitFor("the other gateway", async () => ((await ingest(who, "", second)).status === 429 ? true : undefined));
  // More is allowed: what is owed stays, and is paid off at the new rate.
  await limit(who, { [name]: 1_000_000 });
  for (const gateway of [relog.gateway, second])
    await waitFor("the new limit", async () => ((await ingest(who, records(1), gateway)).status === 200 ? true : undefined));
  await limit(who, { [name]: null });
  await waitFor("no limit", async () => ((await ingest(who)).headers.get("ratelimit") === null ? true : undefined));
});

test("ingest_requests_per_second of a key: refused before the body is read, and let in after Retry-After", async () => {
  const who = await tenant({});
  const { status } = await call(query, relog.key, `PATCH /v1/tenants/${who.name}/keys/${who.keyId}/limits`, {
    ingest_requests_per_second: 1,
    burst_seconds: 1,
  });
  expect(status).toBe(200);
  const refused = await waitFor("a refusal", async () => {
    const answer = await ingest(who, "this is no JSON");
    return answer.status === 429 ? answer : undefined;
  });
  expect(refused.headers.get("ratelimit-policy")).toBe('"key-requests";q=1;w=1');
  expect(refused.body.error).toMatchObject({ code: "rate_limited", of: "key", limit: "ingest_requests_per_second" });
  expect(refused.headers.get("retry-after")).toBe("1");
  await sleep(Number(refused.headers.get("retry-after")) * 1_000);
  expect((await ingest(who)).status).toBe(200);
});

test("a tenant without limits has no fields, and one tenant's limits are no other's", async () => {
  const [held, free] = [await tenant({ ingest_records_per_second: 1, burst_seconds: 1 }), await tenant({})];
  expect((await ingest(held, records(1_000))).status).toBe(200);
  expect((await ingest(held)).status).toBe(429);
  const answer = await ingest(free, records(1_000));
  expect([answer.status, answer.headers.get("ratelimit"), answer.headers.get("ratelimit-policy")]).toEqual([200, null, null]);
});

test("slow senders of one tenant hold its share of the bytes and no more", async () => {
  const [slow, other] = [await tenant({}), await tenant({})];
  const end = Promise.withResolvers<void>();
  /** Sends a part of its body and waits. */
  const stuck = (bytes: number) =>
    fetch(`${relog.gateway.url}/v1/ingest`, {
      method: "POST",
      headers: { "x-api-key": slow.key },
      body: new ReadableStream({
        async start(controller) {
          controller.enqueue(Buffer.alloc(bytes, "\n"));
          await end.promise;
          controller.close();
        },
      }),
      duplex: "half",
    } as RequestInit);
  const held = async (): Promise<number> => {
    const text = await (await fetch(`${relog.gateway.url}/metrics`)).text();
    return Number(/^relog_ingest_bytes_in_flight\S* (\d+)$/m.exec(text)![1]);
  };
  const [first, then] = [stuck(1_200_000), stuck(800_000)];
  await waitFor("both to be held", async () => ((await held()) === 2_000_000 ? true : undefined));
  const refused = await ingest(slow, "\n".repeat(200_000));
  expect(refused).toMatchObject({ status: 429, body: { error: { code: "too_many_bytes" } } });
  expect(refused.body.error.message).toContain("RELOG_TENANT_SHARE_MAX");
  expect((await ingest(other, records(60_000))).status).toBe(200);
  end.resolve();
  expect([(await first).status, (await then).status]).toEqual([400, 400]);
});

test("queries at once, of a tenant, a key and in its share of the process; then there is room again", async () => {
  const who = await tenant({ queries_at_once: 1 });
  const leave = new AbortController();
  const long = "SELECT number, repeat('x', 100) FROM numbers(1000000)";
  const start = (tenantOf: Tenant) =>
    fetch(`${query.url}/v1/query`, { method: "POST", headers: { "x-api-key": tenantOf.key }, body: long, signal: leave.signal });
  const running = await start(who);
  expect([running.status, running.headers.get("ratelimit-policy"), running.headers.get("ratelimit")]).toEqual([
    200,
    '"queries";q=1;qu="concurrent-requests"',
    '"queries";r=0',
  ]);
  const refused = await ask(who, "SELECT 1");
  expect(refused).toMatchObject({ status: 429, body: { error: { code: "too_many_queries", limit: "queries_at_once", value: 1 } } });
  expect([refused.headers.get("retry-after"), refused.headers.get("ratelimit")]).toEqual(["1", '"queries";r=0']);
  // Another query service has heard of it.
  const other = owned.use(await startService("query", relog.stack));
  const elsewhere = () => call(other, who.key, "POST /v1/query", "SELECT 1");
  await waitFor("the other service", async () => ((await elsewhere()).body.error?.limit === "queries_at_once" ? true : undefined));
  // Without limits of its own a tenant has half of the process's four.
  const [free, third] = [await tenant({}), await tenant({})];
  // Held on to: an answer that is collected as garbage is a query that is cancelled.
  const held = [await start(free), await start(free)];
  expect((await ask(free, "SELECT 1")).body.error).toMatchObject({
    code: "too_many_queries",
    message: expect.stringContaining("RELOG_TENANT_SHARE_MAX"),
  });
  expect((await ask(third, "SELECT 1 AS one")).body).toEqual({ one: 1 });
  expect(held.map(({ status, bodyUsed }) => [status, bodyUsed])).toEqual([
    [200, false],
    [200, false],
  ]);
  leave.abort();
  await waitFor("room elsewhere", async () => ((await elsewhere()).status === 200 ? true : undefined));
  await waitFor("room", async () => ((await ask(who, "SELECT 1")).status === 200 ? true : undefined));
});

test.each<[name: string, value: number, sql: string]>([
  ["query_seconds", 1, "SELECT count() FROM numbers(9000000000) WHERE sipHash64(number) = 1"],
  ["query_rows", 1_000, "SELECT sum(number) FROM numbers(100000)"],
  ["query_memory_bytes", 20_000_000, "SELECT length(groupArray(number)) FROM numbers(20000000)"],
])("%s: the error names the tenant's limit; a larger one than the installation's changes nothing", async (name, value, sql) => {
  const who = await tenant({ [name]: value });
  const { body } = await ask(who, sql);
  expect(body.error).toMatchObject({ code: "query_too_expensive", limit: name, value });
  expect(body.error.message).toBe(`the query passed tenant "${who.name}"'s limit ${name}, ${value}`);
  expect((await ask(who, "SELECT 1 AS one")).body).toEqual({ one: 1 });
  if (name !== "query_rows") return;
  await limit(who, { [name]: 10 ** 15 });
  const huge = await ask(who, "SELECT sum(number) FROM numbers(100000000000000)");
  expect(huge.body.error.message).toContain("RELOG_QUERY_ROWS_READ_MAX");
});

test("attributes beyond the limits are found again in `overflow`, on every gateway and after a restart", async () => {
  const who = await tenant({ attributes_per_record: 4, attribute_names_per_day: 5 });
  const sent = [
    { message: "one", a: 1, b: "x", c: true, d: "four", e: "fünf", f: { g: [1] } },
    { message: "two", a: 2, resource: { zone: "z1" } },
    { message: "three", h: "new name", i: "needle in a haystack", a: 3 },
  ];
  const { status, body } = await ingest(who, sent.map((one) => JSON.stringify(one)).join("\n"));
  expect([status, body.accepted, body.overflowed]).toEqual([200, 3, 4]);
  await relog.rows(body.id, 3);
  const rows = async (sql: string) => (await ask(who, sql)).body;
  expect(await rows("SELECT attributes, attribute_types FROM logs WHERE message = 'one'")).toEqual({
    attributes: { a: "1", b: "x", c: "true", d: "four", overflow: '{"e":"fünf","f.g":[1]}' },
    attribute_types: "nsbsj",
  });
  expect(await rows("SELECT message FROM logs WHERE attributes['overflow'] LIKE '%needle in%'")).toEqual({ message: "three" });
  expect(
    await rows("SELECT JSONExtractString(attributes['overflow'], 'h') AS h, attributes['a'] AS a FROM logs WHERE message = 'three'"),
  ).toEqual({ h: "new name", a: "3" });
  expect(await rows("SELECT resource FROM logs WHERE message = 'two'")).toEqual({ resource: { zone: "z1" } });
  // The other gateway agrees soon, and one that starts anew knows what was. What it has not heard of yet it lets in: another name each time.
  let tried = 0;
  const elsewhere = async (): Promise<true | undefined> =>
    (await ingest(who, `{"message":"m","z${tried++}":1}`, second)).body.overflowed === 1 ? true : undefined;
  await waitFor("the other gateway", elsewhere);
  await second.restart();
  await waitFor("the key", async () => ((await ingest(who, "", second)).status === 400 ? true : undefined));
  const again = await ingest(who, '{"message":"m","zz":1,"a":1,"b":1}', second);
  expect([again.status, again.body.overflowed]).toEqual([200, 1]);
  const metrics = await (await fetch(`${relog.gateway.url}/metrics`)).text();
  expect(metrics).toMatch(/^relog_ingest_overflow_attributes_total\{.*limit="attribute_names_per_day".*\} \d+$/m);
  expect(metrics).toMatch(/^relog_ingest_overflow_attributes_total\{.*limit="attributes_per_record".*\} \d+$/m);
});

test("a repeated call gets its receipt whatever the limits on attributes are by then", async () => {
  const who = await tenant({});
  const body = Array.from({ length: 3_000 }, (_, i) => JSON.stringify({ message: "x".repeat(300), a: i, b: i, c: i })).join("\n");
  const send = () =>
    fetch(`${relog.gateway.url}/v1/ingest`, { method: "POST", headers: { "x-api-key": who.key, "idempotency-key": "k1" }, body }).then(
      // biome-ignore lint/suspicious/noExplicitAny: as above
      async (answer) => (await answer.json()) as any,
    );
  const first = await send();
  expect(first.parts.length).toBeGreaterThan(1);
  await limit(who, { attributes_per_record: 1 });
  await waitFor("the limit", async () => ((await ingest(who, '{"a":1,"b":2}')).body.overflowed === 1 ? true : undefined));
  expect(await send()).toMatchObject({ id: first.id, parts: first.parts, duplicate: true });
});

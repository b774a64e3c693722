// Live tails as a reader sees them, on real processes and engines.

import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { startStack } from "../../lib/devstack/stack.ts";
import { Rig } from "../fault/kit.ts";
import { TailReader } from "./tail-kit.ts";

let rig: Rig;
let gateways: Service[];
let query: Service;
beforeAll(async () => {
  rig = new Rig(await startStack({ env: process.env }));
  gateways = [await rig.gateway(), await rig.gateway()];
  query = await rig.service("query", { RELOG_TAIL_KEEP_ALIVE: "200ms", RELOG_TAILS_PER_TENANT: "4", RELOG_TAILS_MAX: "5" });
});
afterAll(() => rig?.[Symbol.asyncDispose]());

interface Key {
  readonly id: string;
  readonly key: string;
}

async function call(line: string, body?: object): Promise<{ status: number; body: Record<string, string> }> {
  const [method = "", path = ""] = line.split(" ");
  const headers = { "x-api-key": rig.key };
  const answer = await fetch(`${query.url}${path}`, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  return { status: answer.status, body: (await answer.json()) as Record<string, string> };
}

/** A tenant of its own with a key that every process knows. */
async function newTenant(tenant: string, more: object = {}): Promise<Key> {
  await call("POST /v1/tenants", { tenant });
  const key = await newKey(tenant, more);
  for (const gateway of gateways)
    await waitFor("the gateways to know the key", async () => ((await send(key.key, [], gateway)).status === 401 ? undefined : true));
  return key;
}

async function newKey(tenant: string, more: object = {}): Promise<Key> {
  const { body, status } = await call(`POST /v1/tenants/${tenant}/keys`, { scopes: ["ingest", "query"], ...more });
  expect(status, JSON.stringify(body)).toBe(201);
  return body as unknown as Key;
}

async function send(key: string, records: readonly object[], gateway = gateways[0]!): Promise<Response> {
  const body = records.map((record) => JSON.stringify(record)).join("\n");
  return await fetch(`${gateway.url}/v1/ingest`, { method: "POST", headers: { authorization: `Bearer ${key}` }, body });
}

async function sendMessages(key: string, messages: readonly string[], gateway = gateways[0]!): Promise<void> {
  const answer = await send(
    key,
    messages.map((message) => ({ message })),
    gateway,
  );
  expect(answer.status).toBe(200);
}

const numbered = (prefix: string, count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `${prefix} ${from + i}`);

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${query.url}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "gm"))].reduce((sum, [, value]) => sum + Number(value), 0);
}

test("records come as they are stored, in order, each once, while two gateways send", async () => {
  const { key } = await newTenant("order");
  using tail = await TailReader.open(query.url, key);
  expect([tail.status, tail.header("content-type")]).toEqual([200, "application/x-ndjson; charset=utf-8"]);
  const batches = 40;
  await Promise.all(
    gateways.map(async (gateway, g) => {
      for (let i = 0; i < batches; i++) await sendMessages(key, numbered(`${g}`, 10, i * 10), gateway);
    }),
  );
  const records = await tail.until(2 * batches * 10);
  expect(new Set(records.map(({ message }) => message)).size).toBe(2 * batches * 10);
  expect(records).toHaveLength(2 * batches * 10);
  // Within a batch by line, without a stranger in between.
  for (const [i, { batch, line }] of records.entries())
    if (line > 0) expect([records[i - 1].batch, records[i - 1].line]).toEqual([batch, line - 1]);
});

test("a record is shown with typed values", async () => {
  const { key } = await newTenant("types");
  using tail = await TailReader.open(query.url, key);
  const trace_id = "0af7651916cd43dd8448eb211c80319c";
  await send(key, [
    {
      timestamp: "2026-01-02T03:04:05.123456789Z",
      level: "warning",
      service: "api",
      host: "h1",
      message: "a\nb",
      trace_id,
      n: 1.5,
      big: 0,
      ok: true,
      text: "x",
      deep: [1, { a: 2 }],
    },
  ]);
  const [record] = await tail.until(1);
  expect(record).toEqual({
    time: "2026-01-02T03:04:05.123456789Z",
    level: "warn",
    service: "api",
    host: "h1",
    message: "a\nb",
    attributes: expect.objectContaining({ n: 1.5, big: 0, ok: true, text: "x" }),
    resource: expect.any(Object),
    trace_id,
    span_id: "",
    event_name: "",
    batch: expect.stringMatching(/^[0-9A-Z]{26}$/),
    line: 0,
  });
});

test("filters, and a refusal that lists the parameters", async () => {
  const { key } = await newTenant("filters");
  using tail = await TailReader.open(query.url, key, "?service=api&level=warn&contains=FAIL&attribute.user=7");
  await send(key, [
    { message: "it failed", service: "api", level: "error", user: 7 },
    { message: "it failed", service: "web", level: "error", user: 7 },
    { message: "it failed", service: "api", level: "info", user: 7 },
    { message: "it went well", service: "api", level: "error", user: 7 },
    { message: "it failed", service: "api", level: "error", user: 8 },
    { message: "fails, the last", service: "api", level: "warn", user: "7" },
  ]);
  expect((await tail.until(2)).map(({ message }) => message)).toEqual(["it failed", "fails, the last"]);
  expect(tail.records).toHaveLength(2);
  for (const [parameters, text] of [
    ["?servce=api", /attribute\.<name>/],
    ["?level=loud", /trace, debug/],
    ["?since=yesterday", /RFC 3339/],
    ["?limit_per_second=0", /at least 1/],
  ] as const) {
    const answer = await fetch(`${query.url}/v1/tail${parameters}`, { headers: { "x-api-key": key } });
    expect([answer.status, await answer.text()]).toEqual([400, expect.stringMatching(text)]);
  }
  const unfit = await fetch(`${query.url}/v1/tail`, { headers: { "x-api-key": key, accept: "text/csv" } });
  expect(unfit.status).toBe(406);
  expect((await fetch(`${query.url}/v1/tail`, { method: "HEAD", headers: { "x-api-key": key } })).status).toBe(405);
});

test("Last-Event-ID goes on behind that record: nothing twice, nothing left out", async () => {
  const { key } = await newTenant("resume");
  const sending = (async () => {
    for (let i = 0; i < 60; i++) await sendMessages(key, numbered("r", 7, i * 7), gateways[i % 2]!);
  })();
  const seen: string[] = [];
  let id: string | undefined;
  // Left in the middle of batches, again and again.
  for (const part of [0, 5, 11, 40, 3]) {
    using tail = await TailReader.events(query.url, key, id === undefined ? "?since=1h" : "?since=1h&limit_per_second=4000", id);
    expect(tail.header("content-type")).toBe("text/event-stream; charset=utf-8");
    await waitFor("an id", () => (tail.lastId === "" ? undefined : true));
    await tail.until(part);
    const taken = tail.events.slice(0, part);
    seen.push(...taken.map(({ data }) => data.message));
    // Before the first record the tail says where it begins; once some came, it stands behind them.
    id = taken.at(-1)?.id ?? (tail.records.length === 0 ? tail.lastId : undefined);
  }
  await sending;
  using tail = await TailReader.events(query.url, key, "", id);
  const rest = await tail.until(60 * 7 - seen.length);
  expect([...seen, ...rest.map(({ message }) => message)].toSorted()).toEqual(numbered("r", 60 * 7).toSorted());
  const bad = await fetch(`${query.url}/v1/tail`, { headers: { "x-api-key": key, "last-event-id": "17" } });
  expect(bad.status).toBe(400);
});

test("another tenant's records never come, also those that lie under the wrong subject", async () => {
  const [mine, other] = [await newTenant("walls-a"), await newTenant("walls-b")];
  using tail = await TailReader.open(query.url, mine.key);
  using theirs = await TailReader.open(query.url, other.key);
  await sendMessages(other.key, numbered("secret", 50));
  await theirs.until(50);
  // As no gateway does it: the other tenant's messages under this tenant's subject, as they are and with a forged envelope.
  const nc = await rig.nats();
  const manager = await nc.jetstreamManager();
  let copied = 0;
  for (const shard of [0, 1]) {
    const message = await manager.streams.getMessage(`LOGS_${shard}`, { last_by_subj: `logs.${shard}.walls-b` }).catch(() => undefined);
    if (message === undefined) continue;
    message.header.delete("Nats-Msg-Id");
    await nc.jetstream().publish(`logs.${shard}.walls-a`, message.data, { headers: message.header });
    message.header.set("Relog-Tenant", "walls-a");
    await nc.jetstream().publish(`logs.${shard}.walls-a`, message.data, { headers: message.header });
    copied++;
  }
  expect(copied).toBeGreaterThan(0);
  await sendMessages(mine.key, ["mine"]);
  for (const gateway of gateways) for (let i = 0; i < 8; i++) await sendMessages(mine.key, ["mine"], gateway);
  await tail.until(17);
  expect(new Set(tail.messages)).toEqual(new Set(["mine"]));
  await waitFor("the strangers to be counted", async () => ((await metric("relog_tail_skipped_total")) >= 100 ? true : undefined));
});

test.each<[string, (key: Key, tenant: string) => ReturnType<typeof call>]>([
  ["its key is revoked", (key, tenant) => call(`DELETE /v1/tenants/${tenant}/keys/${key.id}`)],
  ["its tenant is disabled", (_, tenant) => call(`POST /v1/tenants/${tenant}/disable`, {})],
  ["its tenant is deleted", (_, tenant) => call(`DELETE /v1/tenants/${tenant}`)],
])("a tail ends and says why when %s", async (name, end) => {
  const tenant = `end-${name.split(" ").at(-1)}`;
  const key = await newTenant(tenant);
  using lines = await TailReader.open(query.url, key.key);
  using events = await TailReader.events(query.url, key.key);
  await sendMessages(key.key, ["before"]);
  await Promise.all([lines.until(1), events.until(1)]);
  expect(await end(key, tenant)).toMatchObject({ status: 200 });
  expect([await lines.end(), await events.end()]).toEqual(["clean", "clean"]);
  expect(lines.lines.at(-1)).toMatchObject({ error: { code: "unauthenticated" } });
  expect(events.events.at(-1)).toMatchObject({ event: "error", data: { error: { code: "unauthenticated" } } });
});

test("a tail ends when its key expires; one with a longer life goes on", async () => {
  const longer = await newTenant("expiry");
  const key = await newKey("expiry", { expires: new Date(Date.now() + 1_500).toISOString() });
  using tail = await TailReader.open(query.url, key.key);
  using other = await TailReader.open(query.url, longer.key);
  await tail.end();
  expect(tail.lines.at(-1)).toMatchObject({ error: { code: "unauthenticated" } });
  await sendMessages(longer.key, ["after"]);
  await other.until(1);
});

test("limits of tenant and process, and a place that is free again", async () => {
  const [one, two] = [await newTenant("limit-a"), await newTenant("limit-b")];
  await waitFor("no tails", async () => ((await metric("relog_tails_running")) === 0 ? true : undefined));
  using stack = new DisposableStack();
  for (let i = 0; i < 4; i++) stack.use(await TailReader.open(query.url, one.key));
  const refused = async (key: string) => {
    const answer = await fetch(`${query.url}/v1/tail`, { headers: { "x-api-key": key } });
    return [answer.status, answer.headers.get("retry-after"), await answer.text()];
  };
  expect(await refused(one.key)).toEqual([
    429,
    expect.stringMatching(/^\d+$/),
    expect.stringMatching(/too_many_tails.*RELOG_TAILS_PER_TENANT/),
  ]);
  const last = stack.use(await TailReader.open(query.url, two.key));
  expect(await refused(two.key)).toEqual([429, expect.stringMatching(/^\d+$/), expect.stringMatching(/too_many_tails.*RELOG_TAILS_MAX/)]);
  last[Symbol.dispose]();
  await waitFor("a free place", async () => {
    using tail = await TailReader.open(query.url, two.key);
    return tail.status === 200 ? true : undefined;
  });
});

test("a reader that leaves frees everything, also on the server", async () => {
  const { key } = await newTenant("leave");
  const nc = await rig.nats();
  const manager = await nc.jetstreamManager();
  const state = async () => {
    const consumers = await Promise.all([0, 1].map(async (shard) => (await manager.streams.info(`LOGS_${shard}`)).state.consumer_count));
    return { consumers, tails: await metric("relog_tails_running"), listens: await someoneListens("leave") };
  };
  /** Whether anyone but the stream has an interest in the tenant's subject, asked with a subject that no stream stores. */
  const someoneListens = async (tenant: string): Promise<boolean> =>
    await nc.request(`logs.x.${tenant}`, "", { timeout: 200 }).then(
      () => true,
      (error: { code?: string }) => error.code !== "503",
    );
  // Those of the processes themselves: usage is counted from the same streams.
  const { consumers } = await state();
  const idle = { consumers, tails: 0, listens: false };
  await waitFor("nobody", async () => (JSON.stringify(await state()) === JSON.stringify(idle) ? true : undefined));
  {
    using tail = await TailReader.open(query.url, key);
    using events = await TailReader.events(query.url, key, "?since=1h");
    await sendMessages(key, ["one"]);
    await Promise.all([tail.until(1), events.until(1)]);
    expect(await state()).toEqual({ consumers, tails: 2, listens: true });
  }
  await waitFor("nobody again", async () => (JSON.stringify(await state()) === JSON.stringify(idle) ? true : undefined));
});

// What producers send is data: texts, keys of calls and headers are stored as they are, or mean nothing.

import { headers as natsHeaders } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { HEADERS } from "../../lib/event/envelope.ts";
import { ACME, Injection, OTHER, RAW, TEXTS } from "./injection-kit.ts";
import { TailReader } from "./tail-kit.ts";

let on: Injection;
beforeAll(async () => {
  on = await Injection.start();
});
afterAll(() => on?.[Symbol.asyncDispose]());

const record = (text: string) => ({
  message: text,
  service: text,
  host: text,
  event_name: text,
  level: text,
  trace_id: text,
  [text]: text,
});
const shown = (text: string) => ({ message: text, service: text, host: text, event_name: text, own: text });

test("a record's texts are stored as they are, over HTTP and NATS, and come so by SQL and by the live tail", async () => {
  using reader = await TailReader.open(on.query.url, on.keys.acme);
  const body = TEXTS.map(([, text]) => JSON.stringify(record(text))).join("\n");
  const posted = (await on.send(on.keys.acme, body)).json as { id: string; accepted: number };
  const published = (await on.producing.request(`ingest.${ACME}`, body, { timeout: 10_000 })).json<{ id: string }>();
  expect(posted.accepted).toBe(TEXTS.length);
  const expected = TEXTS.map(([, text]) => shown(text));
  for (const { id } of [posted, published]) {
    const columns = "message, service, host, event_name, attributes";
    const stored = await on.rows(on.keys.acme, id, columns, TEXTS.length);
    const flat = stored.map(({ attributes, ...rest }, i) => ({ ...rest, own: (attributes as Record<string, string>)[TEXTS[i]![1]] }));
    expect(flat).toEqual(expected);
  }
  const came = (await reader.until(2 * TEXTS.length)).map(({ message, service, host, event_name, attributes }) => ({
    message,
    service,
    host,
    event_name,
    own: attributes[message],
  }));
  expect(came).toEqual([...expected, ...expected]);
  // As an event's data, too, nothing ends an event early.
  using events = await TailReader.events(on.query.url, on.keys.acme, "?since=10m");
  expect((await events.until(2 * TEXTS.length)).map(({ message }) => message as string)).toEqual(
    [...expected, ...expected].map(({ message }) => message),
  );
});

test("half a pair is no text: it is stored as the mark of what cannot be read", async () => {
  const { json } = await on.send(on.keys.acme, '{"message":"a\\ud800b","c\\udfffd":"e\\ud83d"}');
  const stored = await on.rows(on.keys.acme, json.id, "message, attributes");
  expect(stored).toEqual([{ message: "a\ufffdb", attributes: { "c\ufffdd": "e\ufffd" } }]);
});

test.each(TEXTS)("%s as the name of a field is that name", async (_, text) => {
  const names = encodeURIComponent(text.replaceAll(",", ";"));
  const { json } = await on.send(on.keys.acme, JSON.stringify({ [text.replaceAll(",", ";")]: "renamed" }), {}, `?message_field=${names}`);
  expect(await on.rows(on.keys.acme, json.id, "message")).toEqual([{ message: "renamed" }]);
});

test.each(TEXTS)("%s in a query: its literals, parameters, headers and faults", async (_, text) => {
  const answer = await on.call("POST /v1/query", text);
  expect(answer.status).toBe(400);
  expect(answer.text).not.toMatch(RAW);
  const asked = await fetch(`${on.query.url}/v1/query?param_x=${encodeURIComponent(text)}`, {
    method: "POST",
    headers: { "x-api-key": on.keys.acme, "content-type": "text/plain" },
    body: "SELECT {x:String} AS x FROM logs LIMIT 1",
  });
  expect(await asked.json()).toEqual({ x: text });
  const unknown = await on.send(on.keys.acme, "{}", {}, `?${encodeURIComponent(text)}=1`);
  expect([unknown.status, unknown.json.error.code]).toEqual([400, "bad_request"]);
});

test("an idempotency key belongs to its tenant, whatever it imitates", async () => {
  const imitations = [
    "x",
    "x:1",
    "key:x",
    "key:x:1",
    `${OTHER}:key:x`,
    `${OTHER}:key:x:1`,
    `${ACME}:key:x:1`,
    "*",
    ">",
    "logs.0.a",
    "../x",
    "'",
    '"',
    "%0d%0a",
  ];
  const ids = new Set<string>();
  for (const key of imitations)
    for (const [tenant, credential] of Object.entries(on.keys)) {
      const body = JSON.stringify({ message: `${tenant} ${key}` });
      const first = await on.send(credential, body, { "idempotency-key": key });
      const again = await on.send(credential, body, { "idempotency-key": key });
      expect([key, first.status, first.json.duplicate ?? false, again.json.duplicate, again.json.id]).toEqual([
        key,
        200,
        false,
        true,
        first.json.id,
      ]);
      ids.add(first.json.id as string);
    }
  expect(ids.size).toBe(2 * imitations.length);
  // The same over NATS, where the name of the header is the one that JetStream looks at.
  const headers = natsHeaders();
  headers.set("Nats-Msg-Id", `${OTHER}:key:x:1`);
  const { duplicate } = (
    await on.producing.request(`ingest.${ACME}`, JSON.stringify({ message: `acme ${OTHER}:key:x:1` }), { headers, timeout: 10_000 })
  ).json<{ duplicate: boolean }>();
  expect(duplicate).toBe(true);
});

const FORGED: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    Object.values(HEADERS)
      .filter((name) => name.startsWith("Relog-"))
      .map((name) => [name, "7"]),
  ),
  "Relog-Tenant": OTHER,
  "Relog-Batch": "01JGK000000000000000000000",
  "Relog-Part": "2/9",
  "Relog-Anything": "x",
  "Nats-Expected-Stream": "CONTROL",
  "Nats-Expected-Last-Sequence": "99",
  "Nats-Expected-Last-Subject-Sequence": "99",
  "Nats-Expected-Last-Msg-Id": "x",
  "Nats-Rollup": "all",
  "Nats-TTL": "1s",
  "Nats-Schedule": "@every 1s",
  "Nats-Batch-Id": "b",
  "Nats-Batch-Commit": "1",
  "Nats-Incr": "1",
  "X-Scope-OrgID": OTHER,
  "X-Tenant": OTHER,
};

test.each(["HTTP", "NATS"])("headers of ours and of NATS mean nothing when a producer sends them over %s", async (way) => {
  async function stored(forged: Readonly<Record<string, string>>): Promise<ReadonlyMap<string, string>> {
    const headers = natsHeaders();
    for (const [name, value] of Object.entries(forged)) headers.set(name, value);
    const body = '{"message":"same"}';
    const answer =
      way === "HTTP"
        ? (await on.send(on.keys.acme, body, forged)).json
        : (await on.producing.request(`ingest.${ACME}`, body, { headers, timeout: 10_000 })).json<object>();
    const { stream, seq, id } = (answer.parts?.[0] ?? answer) as { stream: string; seq: number; id: string };
    const { header, subject } = await (await on.nc.jetstreamManager()).streams.getMessage(stream, { seq });
    expect(subject).toMatch(new RegExp(`^logs\\.[01]\\.${ACME}$`));
    expect(await on.rows(on.keys.acme, answer.id ?? id, "message, tenant")).toEqual([{ message: "same", tenant: ACME }]);
    return new Map(header.keys().map((name) => [name, header.get(name)]));
  }
  const [plain, attacked] = [await stored({}), await stored(FORGED)];
  expect([...attacked.keys()].sort()).toEqual([...plain.keys()].sort());
  const varies: readonly string[] = [HEADERS.messageId, HEADERS.batch, HEADERS.minTimestamp, HEADERS.maxTimestamp, HEADERS.observedMs];
  for (const [name, value] of plain) if (!varies.includes(name)) expect([name, attacked.get(name)]).toEqual([name, value]);
  for (const name of varies) expect(Object.values(FORGED)).not.toContain(attacked.get(name));
});

test("over HTTP the header of JetStream's de-duplication is no idempotency key", async () => {
  const twice = [1, 2].map(() => on.send(on.keys.acme, '{"message":"twice"}', { "Nats-Msg-Id": "same" }));
  const [one, two] = await Promise.all(twice);
  expect([one!.status, two!.status, one!.json.id === two!.json.id]).toEqual([200, 200, false]);
});

test("what the services logged of all this is harmless", () => {
  on.expectHarmlessLogs();
});

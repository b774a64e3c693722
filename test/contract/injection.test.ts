// Texts that are meant to be taken for something else: as names, in headers and paths, as keys of calls.

import { connect as connectTcp } from "node:net";
import { headers as natsHeaders } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { ACME, ESC, Injection, NAMES, OTHER, RAW, TEXTS, TEXTS_TOO_BAD } from "./injection-kit.ts";

let on: Injection;
beforeAll(async () => {
  on = await Injection.start();
});
afterAll(() => on?.[Symbol.asyncDispose]());

test.each(TEXTS_TOO_BAD)("%s is no name: of a tenant, a title, a label, a reason, a scope, a time zone", async (_, text) => {
  const before = await on.controlSeq();
  const own = `/v1/tenants/${ACME}`;
  const answers = [
    await on.call("POST /v1/tenants", { tenant: text }),
    await on.call("POST /v1/tenants", { tenant: "inject-new", title: text }),
    await on.call("POST /v1/tenants", { tenant: "inject-new", [text]: 1 }),
    await on.call(`PATCH ${own}`, { title: text }),
    await on.call(`POST ${own}/disable`, { reason: text }),
    await on.call(`POST ${own}/keys`, { scopes: ["query"], label: text }),
    await on.call(`POST ${own}/keys`, { scopes: [text] }),
    await on.call(`POST ${own}/keys`, { scopes: ["query"], expires: text }),
    await on.call(`PATCH ${own}/limits`, { quotas: { time_zone: text } }),
    await on.call(`PATCH ${own}/limits`, { limits: { [text]: 1 } }),
    await on.call(`DELETE ${own}?reason=${encodeURIComponent(text.toWellFormed() === text ? text : "\0")}`),
  ];
  expect(answers.map(({ status, json }) => [status, json.error.code])).toEqual(answers.map(() => [400, "bad_request"]));
  for (const { text: said } of answers) expect(said).not.toMatch(RAW);
  expect(await on.controlSeq()).toBe(before);
});

test.each(NAMES)("%j is no name of a tenant", async (name) => {
  const before = await on.controlSeq();
  const path = encodeURIComponent(name).replaceAll(".", "%2e");
  expect((await on.call("POST /v1/tenants", { tenant: name })).status).toBe(400);
  expect([400, 404]).toContain((await on.call(`PATCH /v1/tenants/${path}`, { title: "x" })).status);
  expect([400, 404]).toContain((await on.call(`POST /v1/tenants/${path}/keys`, { scopes: ["query"] })).status);
  expect([400, 404]).toContain((await on.call(`GET /v1/usage?tenant=${encodeURIComponent(name)}`, undefined, on.keys.acme)).status);
  expect([400, 403, 404]).toContain((await on.call(`GET /v1/audit?tenant=${encodeURIComponent(name)}`, undefined, on.keys.acme)).status);
  expect(await on.controlSeq()).toBe(before);
});

test.each([
  ...TEXTS,
  ["a space", "a b"] as const,
  ["no ASCII", "ä"] as const,
  ["too many", "x".repeat(201)] as const,
])("%s is no idempotency key", async (_, text) => {
  const headers = natsHeaders();
  // The client takes no line ends; the server would end the header there.
  headers.set("Nats-Msg-Id", `k${text.replaceAll(/[\r\n]/g, " ")}`);
  const { error } = (await on.producing.request(`ingest.${ACME}`, "{}", { headers, timeout: 10_000 })).json<{
    error: { description: string };
  }>();
  expect(error.description).toMatch(/^idempotency_key_invalid/);
  const raw = await bytes(
    on.gateway,
    `POST /v1/ingest HTTP/1.1\r\nhost: a\r\nx-api-key: ${on.keys.acme}\r\nidempotency-key: k${text}\r\ncontent-length: 2\r\n\r\n{}`,
  );
  // A line end ends the header: what is behind it is the client's own request, and no answer's header.
  expect(raw).toMatch(text.includes("\r\n") ? /^HTTP\/1\.1 (200|400) / : /^HTTP\/1\.1 400 /);
  expect(head(raw)).not.toMatch(/forged/i);
});

/** What a service answers to these bytes until it closes or has answered once. */
async function bytes({ url }: Service, request: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return await new Promise((done, fail) => {
    const socket = connectTcp(Number(port), hostname, () => socket.write(Buffer.from(request, "utf8")));
    let text = "";
    const end = (): void => {
      socket.destroy();
      done(text);
    };
    socket.on("data", (data) => {
      text += data.toString("latin1");
      const length = /content-length: (\d+)/i.exec(text);
      const body = text.split("\r\n\r\n").slice(1).join("\r\n\r\n");
      if (length !== null && text.includes("\r\n\r\n") && body.length >= Number(length[1])) end();
    });
    socket.on("close", end);
    socket.on("error", fail);
  });
}

const head = (raw: string): string => raw.split("\r\n\r\n")[0]!;

test("no answer's headers can be split by a path, a parameter or a header", async () => {
  const split = "%0d%0aSet-Cookie:%20forged=1%0d%0a%0d%0aforged";
  const auth = `x-api-key: ${on.rig.key}`;
  const requests: [Service, string][] = [
    [on.gateway, `GET /${split} HTTP/1.1\r\nhost: a`],
    [on.gateway, `POST /v1/ingest?${split}=1 HTTP/1.1\r\nhost: a\r\n${auth}`],
    [on.gateway, `POST /v1/ingest HTTP/1.1\r\nhost: a\r\n${auth}\r\ncontent-type: image/\u00e4${split}`],
    [on.query, `GET /${split} HTTP/1.1\r\nhost: a`],
    [on.query, `GET /v1/receipts/${split} HTTP/1.1\r\nhost: a\r\n${auth}`],
    [on.query, `GET /v1/tenants/${split} HTTP/1.1\r\nhost: a\r\n${auth}`],
    [on.query, `GET /v1/tenants?${split}=1 HTTP/1.1\r\nhost: a\r\n${auth}`],
    [on.query, `GET /v1/tail?service=${split}&nonsense=1 HTTP/1.1\r\nhost: a\r\n${auth}\r\nlast-event-id: ${split}`],
    [on.query, `POST /v1/query HTTP/1.1\r\nhost: a\r\n${auth}\r\naccept: ${split}\r\nx-relog-query-id: ${split}\r\ncontent-length: 0`],
    [on.scheduler, `GET /${split} HTTP/1.1\r\nhost: a\r\n${auth}`],
    [on.scheduler, `DELETE /v1/archive/tables/${split} HTTP/1.1\r\nhost: a\r\n${auth}`],
    [on.scheduler, `GET /v1/dead-letters/${split} HTTP/1.1\r\nhost: a\r\n${auth}`],
  ];
  for (const [service, request] of requests) {
    const raw = await bytes(service, `${request}\r\nconnection: close\r\n\r\n`);
    expect([request, head(raw)]).toEqual([request, expect.stringMatching(/^HTTP\/1\.1 4\d\d /)]);
    expect(head(raw)).not.toMatch(/cookie|forged/i);
    expect(raw.split("\r\n\r\n").slice(1).join("")).not.toMatch(/[\r\n\0]forged/);
  }
});

test("who asks from where is what the socket says, not a header", async () => {
  const forged = "203.0.113.7";
  const names = [
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-forwarded-host",
    "via",
  ];
  const headers = { ...Object.fromEntries(names.map((name) => [name, `${forged}\t${name}`])), "x-api-key": on.rig.key };
  const body = JSON.stringify({ title: "from where" });
  expect((await fetch(`${on.query.url}/v1/tenants/${ACME}`, { method: "PATCH", headers, body })).status).toBe(200);
  const { text, json } = await on.call(`GET /v1/audit?tenant=${ACME}&limit=1`);
  expect(json.entries[0]).toMatchObject({ what: "tenant_renamed", where: expect.stringMatching(/client (127\.0\.0\.1|::)/) });
  expect(text).not.toContain(forged);
});

test("after all of this every line that the services logged is one JSON record without raw control characters", async () => {
  // What a producer names as its reply stays in its account; what comes from the services' own reaches the gateway as it is.
  const hostile = { reply: `_INBOX_${OTHER}.${ESC}[2J\u009b2J\u202e\u2028\ufeff` };
  for (const nc of [on.producing, on.nc]) nc.publish(`ingest.${ACME}`, "{}", hostile);
  on.producing.publish(`ingest.${ACME}`, `{"${ESC}[2J\u009b`);
  await waitFor("the gateway to log both", () => {
    const said = on.gateway.logs.join("\n");
    return said.includes("no inbox of its tenant") && said.includes("a NATS publish was not stored") ? true : undefined;
  });
  on.expectHarmlessLogs();
  const { reply } = JSON.parse(on.gateway.logs.find((line) => line.includes("no inbox of its tenant"))!) as { reply: string };
  expect(reply).toBe(hostile.reply);
});

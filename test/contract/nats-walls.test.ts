// What a producer's key does not open on NATS. A spy with the services' rights hears everything that gets through.

import type { NatsConnection } from "nats";
import { headers as natsHeaders } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { Installation } from "./gateway.ts";
import { internal, keysOn, producer } from "./keys.ts";

let relog: Installation;
let [spy, acme, other, home]: NatsConnection[] = [];
const heard: string[] = [];
const violations: string[] = [];
const FORGED = "forged by a producer";
const NDJSON = '{"message":"a"}\n';

beforeAll(async () => {
  relog = await Installation.start();
  spy = await internal(relog.stack);
  const keys = await keysOn(spy);
  for (const tenant of ["acme", "other"]) await keys.tenant(tenant);
  const made = await Promise.all([keys.key("acme"), keys.key("other")]);
  const connected = async (tenant: string, key: string) =>
    await waitFor(`the key of ${tenant} to be known`, () => producer(relog.stack, tenant, key).catch(() => undefined));
  [acme, other] = [await connected("acme", made[0].key), await connected("other", made[1].key)];
  home = await producer(relog.stack, "default", relog.key);
  void (async () => {
    for await (const { data } of acme.status()) violations.push(String(data));
  })();
  spy.subscribe(">", {
    callback(_, message) {
      // What a stream hands to those who follow it bears the subject that it was stored under.
      if (!message.reply?.startsWith("$JS.ACK.")) heard.push(`${message.subject} ${message.string().slice(0, FORGED.length)}`);
    },
  });
  await spy.flush();
});
afterAll(async () => {
  for (const nc of [spy, acme, other, home]) await nc?.close();
  await relog?.[Symbol.asyncDispose]();
});

/** Everything that the server had from the producer has been passed on. */
async function settled(): Promise<void> {
  for (const nc of [acme!, spy!, spy!]) await nc.flush();
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${relog.gateway.url}/metrics`)).text();
  return Number(new RegExp(`^${name}\\{[^}]*\\} (\\d+)`, "m").exec(text)?.[1] ?? 0);
}

test("a key hands in its tenant's logs and hears the answers", async () => {
  for (const [nc, tenant] of [
    [acme!, "acme"],
    [other!, "other"],
    [home!, "default"],
  ] as const) {
    const { id } = (await nc.request(`ingest.${tenant}`, NDJSON, { timeout: 10_000 })).json<{ id: string }>();
    expect(await relog.rows(id, 1, "tenant, message")).toEqual([{ tenant, message: "a" }]);
  }
});

test.each([
  "ingest.other",
  "ingest.default",
  "ingest.acme.more",
  "ingest",
  "ingest.*",
  "ingest.>",
  "logs.0.acme",
  "dead.0.acme",
  "control.accounts.acme",
  "control.operations",
  "$KV.projections.checkpoint.main.1.0",
  "$JS.API.INFO",
  "$JS.API.STREAM.DELETE.LOGS_0",
  "$JS.API.STREAM.MSG.GET.CONTROL",
  "$JS.API.DIRECT.GET.LOGS_0",
  "$JS.ACK.LOGS_0.x.1.1.1.1.1",
  "$SYS.REQ.USER.AUTH",
  "$SYS.REQ.USER.INFO.x",
  "$SYS.REQ.SERVER.PING.CONNZ",
  "_INBOX.x",
  "_INBOX_acme.x",
  "_INBOX_other.x",
  "_INBOX_default.x",
  "_INBOX_RELOG.x",
  "_R_.x",
  "anything",
])("a key may not publish to %s", async (subject) => {
  [heard.length, violations.length] = [0, 0];
  acme!.publish(subject, FORGED, { reply: "_INBOX_acme.1" });
  await settled();
  // The services talk to JetStream meanwhile.
  expect(heard.filter((one) => one.endsWith(FORGED))).toEqual([]);
  await waitFor("the server to say so", () => violations.find((text) => /PERMISSIONS_VIOLATION/.test(text)));
});

test.each([
  ">",
  "*",
  "*.*",
  "*.>",
  "_INBOX.>",
  "_INBOX.*",
  "_INBOX.*.*",
  "_INBOX_acme",
  "_INBOX_other.>",
  "_INBOX_default.>",
  "_INBOX_RELOG.>",
  "_INBOX_RELOG.x",
  "ingest.acme",
  "ingest.>",
  "logs.>",
  "logs.0.acme",
  "dead.>",
  "control.>",
  "$JS.>",
  "$JS.API.>",
  "$KV.>",
  "$SYS.>",
  "$SYS.REQ.USER.AUTH",
  "_R_.>",
])("a key may not listen to %s", async (subject) => {
  for (const options of [{}, { queue: "gateways" }]) {
    const refused = acme!.subscribe(subject, options);
    const listen = async () => {
      for await (const message of refused) throw new Error(`heard ${message.subject}`);
    };
    await expect(listen()).rejects.toMatchObject({ code: "PERMISSIONS_VIOLATION" });
  }
});

test("the answers of others and of the services are heard by nobody else, not even in the common inbox", async () => {
  const overheard: string[] = [];
  for (const subject of ["_INBOX.>", "_INBOX_default.>"])
    home!.subscribe(subject, { callback: (error, message) => void overheard.push(error?.message ?? message.subject) });
  await home!.flush();
  await acme!.request("ingest.acme", NDJSON, { timeout: 10_000 });
  await spy!.jetstreamManager();
  await home!.flush();
  expect(overheard).toEqual([]);
  await home!.request("ingest.default", NDJSON, { timeout: 10_000 });
  await home!.flush();
  expect(overheard).toEqual([expect.stringMatching(/^_INBOX_default\./)]);
});

const REPLIES = [
  "logs.0.acme",
  "dead.0.acme",
  "control.accounts.acme",
  "$KV.projections.checkpoint.main.1.0",
  "$JS.API.STREAM.PURGE.LOGS_0",
  "$SYS.REQ.USER.AUTH",
  "ingest.other",
  "_INBOX.x",
  "_INBOX_other.x",
  "_INBOX_acme_x.y",
  "_INBOX_RELOG.x",
  "_INBOX_acme",
];
const ANSWER = /^\S+ \{"(id|stream|error|accepted)"/;

/** How many messages all streams have had. */
async function stored(): Promise<number> {
  const seqs: number[] = [];
  for await (const { state } of (await spy!.jetstreamManager()).streams.list()) seqs.push(state.last_seq);
  return seqs.reduce((sum, seq) => sum + seq);
}

// A reply is where a producer would have the gateway write. In the services' account the server puts a subject of its own in its place.
test("an answer leads back into the producers' account, whatever reply a producer names", async () => {
  const before = await stored();
  heard.length = 0;
  for (const reply of REPLIES) acme!.publish("ingest.acme", NDJSON, { reply });
  await waitFor("all to be stored", async () => ((await stored()) === before + REPLIES.length ? true : undefined));
  await acme!.request("ingest.acme", NDJSON, { timeout: 10_000 });
  await settled();
  const answers = heard.filter((one) => ANSWER.test(one)).map((one) => one.split(" ")[0]!);
  // JetStream answers the services that way, too.
  const ours = answers.filter((subject) => !/^_INBOX_RELOG\.\w+\./.test(subject));
  expect(ours.filter((subject) => !/^_R_\.\w+\.\w+$/.test(subject))).toEqual([]);
  expect(ours.length).toBe(REPLIES.length + 1);
  // Nothing but the messages themselves: an answer is no message of another tenant's, no change and no question.
  expect(heard.filter((one) => /^(ingest|dead|control|\$KV|\$SYS|_INBOX_acme|_INBOX_other|_INBOX\.)/.test(one))).toEqual(
    Array.from({ length: REPLIES.length + 1 }, () => expect.stringMatching(/^ingest\.acme /)),
  );
  expect(await stored()).toBe(before + REPLIES.length + 1);
});

test("a producer may not name a reply of the server's own", async () => {
  [heard.length, violations.length] = [0, 0];
  acme!.publish("ingest.acme", FORGED, { reply: "_R_.abcdef.ghijkl" });
  await settled();
  await waitFor("the server to say so", () => violations.find((text) => /PERMISSIONS_VIOLATION/.test(text)));
  expect(heard.filter((one) => one.endsWith(FORGED))).toEqual([]);
});

test("within the services' account an answer goes to the inboxes of the subject's tenant only; what asks for another one is not stored", async () => {
  const [refused, before] = [await metric("relog_nats_replies_refused_total"), await stored()];
  heard.length = 0;
  for (const reply of REPLIES) spy!.publish("ingest.acme", NDJSON, { reply });
  await waitFor("all to be refused", async () =>
    (await metric("relog_nats_replies_refused_total")) - refused === REPLIES.length ? true : undefined,
  );
  spy!.publish("ingest.acme", NDJSON, { reply: "_INBOX_acme.1" });
  await waitFor("an answer", () => heard.find((one) => one.startsWith('_INBOX_acme.1 {"')));
  const answers = heard.filter((one) => ANSWER.test(one)).map((one) => one.split(" ")[0]!);
  expect(answers.filter((subject) => !/^_INBOX_RELOG\.\w+\./.test(subject))).toEqual(["_INBOX_acme.1"]);
  expect(await stored()).toBe(before + 1);
  expect(relog.gateway.logs.join("\n")).toContain("its reply is to no inbox of its tenant");
});

test("headers that mean something to NATS are not passed on, and make the server write nowhere", async () => {
  const hostile = {
    "Nats-Rollup": "all",
    "Nats-Expected-Stream": "CONTROL",
    "Nats-Expected-Last-Sequence": "99",
    "Nats-TTL": "1s",
    "Nats-Marker-Reason": "Purge",
    "Nats-Schedule": "@every 1s",
    "Nats-Schedule-Target": "control.accounts.acme",
    "Nats-Batch-Id": "b",
    "Relog-Tenant": "other",
  };
  const headers = natsHeaders();
  for (const [name, value] of Object.entries(hostile)) headers.set(name, value);
  heard.length = 0;
  const { stream, seq } = (await acme!.request("ingest.acme", NDJSON, { headers, timeout: 10_000 })).json<{
    stream: string;
    seq: number;
  }>();
  const manager = await spy!.jetstreamManager();
  const { header, subject } = await manager.streams.getMessage(stream, { seq });
  expect(subject).toMatch(/^logs\.[01]\.acme$/);
  expect(header.keys().filter((name) => name.startsWith("Nats-"))).toEqual(["Nats-Msg-Id"]);
  expect(header.get("Relog-Tenant")).toBe("acme");
  await settled();
  // Whoever reads the stream gets the message under its own subject, so it may be heard again: it is stored once.
  expect(new Set(heard.map((one) => one.split(" ")[0]!).filter((one) => /^(logs|control)\./.test(one)))).toEqual(new Set([subject]));
  expect((await manager.streams.info(stream)).state.last_seq).toBe(seq);
});

test.each(["logs.0.acme", "_INBOX_acme.trace"])("the server traces no message of a producer to %s", async (destination) => {
  [heard.length, violations.length] = [0, 0];
  const headers = natsHeaders();
  headers.set("Nats-Trace-Dest", destination);
  acme!.publish("ingest.acme", NDJSON, { headers });
  await settled();
  await waitFor("the server to say so", () => violations.find((text) => /PERMISSIONS_VIOLATION/.test(text)));
  expect(heard.filter((one) => one.startsWith(`${destination} `) || one.startsWith("ingest."))).toEqual([]);
});

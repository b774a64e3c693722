// From a call to a receipt, with an append port that can fail in every way, and the whole app under interleaved calls.

import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import { RelogError } from "../base/errors.ts";
import { SCOPES } from "../base/principal.ts";
import { createTelemetry } from "../base/telemetry.ts";
import { decodeBatch } from "../event/decode.ts";
import type { Envelope } from "../event/envelope.ts";
import { readEnvelope } from "../event/envelope.ts";
import { shardOf } from "../event/ids.ts";
import type { AppendPort } from "./accept.ts";
import { acceptor } from "./accept.ts";
import { admission } from "./admit.ts";
import { ingestApi } from "./gateway.ts";
import { nativeIngest } from "./native/serve.ts";
import type { QuotaPort } from "./quota.ts";
import { NO_QUOTAS } from "./quota.ts";
import { UNBOUNDED } from "./tenancy.ts";

const NOW_MS = 1_735_689_600_123;
const SHARDS = 4;
const SETTINGS = {
  recordBytesMax: 10_000,
  attributesMax: 20,
  depthMax: 8,
  keyBytesMax: 64,
  futureMaxMs: 86_400_000,
  messageBytesMax: 3_000,
  errorsReportedMax: 3,
};
const BODY = { bodyBytesMax: 10_000_000, decodedBytesMax: 20_000_000, ratioMax: 200 };

interface Answer {
  readonly id: string;
  readonly accepted: number;
  readonly parts: readonly { readonly stream: string }[];
  readonly error: { readonly code: string };
}

interface Stored {
  readonly envelope: Envelope;
  readonly payload: Buffer;
}

/** Streams that de-duplicate like JetStream; `fault` says what goes wrong with the n-th append: "before" stores nothing, "after" loses the answer. */
function house(fault: (n: number) => "before" | "after" | undefined = () => undefined, quotas: QuotaPort = NO_QUOTAS) {
  const streams = Array.from({ length: SHARDS }, (): Stored[] => []);
  const known = new Map<string, number>();
  let appends = 0;
  const append: AppendPort = async ({ shard, headers, payload }) => {
    const header = new Map(headers);
    const wrong = fault(appends++);
    await setImmediate();
    const unknown = new RelogError("outcome_unknown", "nobody knows", { retryAfterS: 2 });
    if (wrong === "before") throw unknown;
    const id = `${shard}/${header.get("Nats-Msg-Id")}`;
    const before = known.get(id);
    const envelope = readEnvelope((name) => header.get(name) ?? "") as Envelope;
    const seq = before ?? streams[shard]!.push({ envelope, payload: Buffer.from(payload) });
    known.set(id, seq);
    if (wrong === "after") throw unknown;
    return { stream: `LOGS_${shard}`, seq, duplicate: before !== undefined };
  };
  const telemetry = createTelemetry("gateway", "silent", false);
  const admitted = admission({ requestsInFlightMax: 1000, bytesInFlightMax: 50_000_000, tenantSharePercent: 50 }, telemetry);
  const envelopeAt = async (stream: string, seq: number) => streams[Number(stream.slice(5))]![seq - 1]!.envelope;
  const tenancy = { ...UNBOUNDED, quotas };
  const accept = acceptor(SETTINGS, SHARDS, append, envelopeAt, { now: () => NOW_MS, monotonicMs: () => 0 }, telemetry, tenancy);
  const who = { tenant: "acme", keyId: "k", scopes: SCOPES };
  const app = ingestApi((key) => (key === "k" ? who : undefined), accept, admitted, BODY, telemetry, tenancy);
  const native = nativeIngest((tenant) => (tenant === "acme" ? who : undefined), accept, admitted, BODY, telemetry, tenancy);
  const post = async (body: string | Uint8Array, headers: Record<string, string> = {}) => {
    const response = await app.request("/v1/ingest", {
      method: "POST",
      body: body as string,
      headers: { authorization: "Bearer k", ...headers },
    });
    return {
      status: response.status,
      retryAfter: response.headers.get("retry-after"),
      answer: (await response.json()) as Answer,
    };
  };
  const records = async () => (await Promise.all(streams.flat().map(({ payload }) => decodeBatch(payload, 2 ** 24)))).flat();
  return { streams, post, records, admitted, native };
}

const lines = (count: number, mark = "m"): string =>
  Array.from({ length: count }, (_, i) => `{"message":"${mark}-${i}-${"x".repeat(400)}"}`).join("\n");

it("a receipt says where the batch is", async () => {
  const { post, streams } = house();
  const { status, answer } = await post('{"message":"a"}\nbad\n{"message":"b"}');
  const shard = shardOf(answer.id, SHARDS);
  expect(status).toBe(200);
  expect(answer).toEqual({
    id: answer.id,
    stream: `LOGS_${shard}`,
    seq: 1,
    accepted: 2,
    rejected: 1,
    errors: [expect.objectContaining({ line: 2, code: "invalid_json" })],
  });
  expect(streams[shard]![0]!.envelope).toMatchObject({
    tenant: "acme",
    batch: answer.id,
    part: 1,
    parts: 1,
    firstLine: 0,
    records: 2,
    accepted: 2,
    rejected: 1,
    source: "ndjson",
    bodyHash: "",
  });
});

it("a large call becomes several messages on one shard; lines count through", async () => {
  const { post, records, streams } = house();
  const { answer } = await post(lines(50));
  expect(answer.parts.length).toBeGreaterThan(3);
  expect(new Set(answer.parts.map(({ stream }) => stream)).size).toBe(1);
  expect((await records()).map(({ line, body }) => [line, body.split("-")[1]])).toEqual(
    Array.from({ length: 50 }, (_, i) => [i, String(i)]),
  );
  const envelopes = streams.flat().map(({ envelope }) => envelope);
  expect(envelopes.map(({ part, parts }) => [part, parts])).toEqual(envelopes.map((_, i) => [i + 1, envelopes.length]));
});

it.each<[string, string, Record<string, string>, number, string]>([
  ["no key", "{}", { authorization: "" }, 401, "unauthenticated"],
  ["nothing", "", {}, 400, "empty_body"],
  ["only bad records", "x\ny\nz\nw", {}, 400, "all_rejected"],
  ["an idempotency key with a space", "{}", { "idempotency-key": "a b" }, 400, "idempotency_key_invalid"],
  ["a long idempotency key", "{}", { "idempotency-key": "x".repeat(201) }, 400, "idempotency_key_invalid"],
  ["an image", "{}", { "content-type": "image/png" }, 415, "unsupported_media_type"],
  ["bytes that are no gzip", "{}", { "content-encoding": "gzip" }, 400, "bad_encoding"],
])("%s is refused and stores nothing", async (_, body, headers, status, code) => {
  const { post, streams, admitted } = house();
  const refused = await post(body, headers);
  expect([refused.status, refused.answer.error.code]).toEqual([status, code]);
  if (code === "all_rejected") expect(refused.answer.error).toMatchObject({ accepted: 0, rejected: 4, errors: { length: 3 } });
  expect([streams.flat().length, admitted.held]).toEqual([0, 0]);
});

it("the same key gets the same receipt and stores nothing twice", async () => {
  const { post, records } = house();
  const first = (await post(`${lines(30)}\nbad`, { "idempotency-key": "k1" })).answer;
  const again = (await post(`${lines(30)}\nbad`, { "idempotency-key": "k1" })).answer;
  expect(again).toEqual({ ...first, duplicate: true });
  expect((await records()).length).toBe(30);
  const other = await post(lines(2), { "idempotency-key": "k1" });
  expect([other.status, other.answer.error.code]).toEqual([422, "idempotency_key_reused"]);
  expect((await records()).length).toBe(30);
});

it.each(["before", "after"] as const)("a call that dies %s any of its appends is finished by its retry, under one id", async (kind) => {
  for (let dies = 0; dies < 4; dies++) {
    const { post, records, streams, admitted } = house((n) => (n === dies ? kind : undefined));
    const first = await post(lines(30), { "idempotency-key": "k" });
    expect([first.status, first.retryAfter, first.answer.error.code]).toEqual([503, "2", "outcome_unknown"]);
    expect(admitted.held).toBe(0);
    const { status, answer } = await post(lines(30), { "idempotency-key": "k" });
    expect([status, answer.accepted]).toEqual([200, 30]);
    const stored = await records();
    expect(stored.map(({ line }) => line)).toEqual(Array.from({ length: 30 }, (_, i) => i));
    expect(new Set([...stored.map(({ batch }) => batch), answer.id]).size).toBe(1);
    expect(streams.flat().map(({ envelope }) => envelope.batch)).toEqual(answer.parts.map(() => answer.id));
  }
});

it("two calls at once with one key are one batch", async () => {
  const { post, records } = house();
  const answers = await Promise.all([1, 2, 3].map(() => post(lines(30), { "idempotency-key": "k" })));
  expect(new Set(answers.map(({ answer }) => answer.id)).size).toBe(1);
  expect((await records()).length).toBe(30);
});

it("calls with different keys in one millisecond are different batches", async () => {
  const { post } = house();
  const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => post('{"a":1}', { "idempotency-key": `k${i}` })));
  expect(new Set(answers.map(({ answer }) => answer.id)).size).toBe(200);
});

it("calls that run interleaved, good and failing, HTTP and NATS, never see each other's bytes", async () => {
  const { post, records, admitted, native } = house((n) => (n % 41 === 3 ? "before" : undefined));
  const wanted = new Map<string, number>();
  const one = async (i: number): Promise<void> => {
    const [mark, count] = [`c${i}`, 1 + ((i * 31) % 80)];
    const body = i % 11 === 0 ? `${lines(count, mark)}\n{"broken` : lines(count, mark);
    if (i % 13 === 0) return void (await post(body.slice(0, 100), { "content-encoding": "zstd" }));
    const encoded =
      i % 3 === 0 ? await new Response(new Blob([body]).stream().pipeThrough(new CompressionStream("gzip"))).bytes() : Buffer.from(body);
    const encoding: Record<string, string> = i % 3 === 0 ? { "content-encoding": "gzip" } : {};
    for (let tries = 0; tries < 100; tries++) {
      const headers = { ...encoding, "idempotency-key": mark };
      if (i % 4 === 0) {
        const header = (name: string) => (headers as Record<string, string>)[name];
        const request = { subject: "ingest.acme", payload: encoded, header, reply: "_INBOX_acme.1", sender: undefined };
        if ((await native(request)).error === undefined) break;
      } else if ((await post(encoded, headers)).status === 200) break;
    }
    wanted.set(mark, count);
  };
  for (let round = 0; round < 4; round++) await Promise.all(Array.from({ length: 40 }, (_, i) => one(round * 40 + i)));
  const seen = new Map<string, Set<number>>();
  for (const { body, line, batch } of await records()) {
    const [mark, index, filler] = body.split("-") as [string, string, string];
    expect([filler, Number(index)]).toEqual(["x".repeat(400), line]);
    const of = seen.get(`${mark}/${batch}`) ?? new Set();
    expect(of.has(line)).toBe(false);
    seen.set(`${mark}/${batch}`, of.add(line));
  }
  expect(new Map([...seen].map(([id, found]) => [id.split("/")[0]!, found.size]))).toEqual(wanted);
  expect(admitted.held).toBe(0);
});

it("over the bound of requests is 429 with Retry-After", async () => {
  const telemetry = createTelemetry("gateway", "silent", false);
  const admitted = admission({ requestsInFlightMax: 1, bytesInFlightMax: 1000, tenantSharePercent: 100 }, telemetry);
  const gate = Promise.withResolvers<void>();
  const running = admitted.admit("acme", () => gate.promise);
  await expect(admitted.admit("acme", async () => undefined)).rejects.toMatchObject({
    code: "too_many_requests",
    retryAfterS: 1,
    message: expect.stringContaining("RELOG_REQUESTS_IN_FLIGHT_MAX"),
  });
  gate.resolve();
  await running;
  await expect(admitted.admit("acme", async () => 1)).resolves.toBe(1);
});

it("each message that is stored is counted once, a repetition is not", async () => {
  const counted: Parameters<QuotaPort["stored"]>[0][] = [];
  const { post, streams } = house(undefined, { ...NO_QUOTAS, stored: (message) => counted.push(message) });
  const { answer } = await post(lines(20), { "idempotency-key": "one" });
  await post(lines(20), { "idempotency-key": "one" });
  const shard = Number(answer.parts[0]!.stream.slice(5));
  expect(counted.length).toBe(answer.parts.length);
  expect(counted).toEqual(
    streams[shard]!.map(({ envelope: { records, size } }, i) => ({ tenant: "acme", shard, seq: i + 1, records, size })),
  );
});

it("over quota is 429 before anything is read, over HTTP and NATS", async () => {
  const details = { quota: "records_per_day", limit: 5, used: 7, until: "2026-01-03T00:00:00+01:00" };
  const verdict = () => ({ kind: "reject", reason: "records_per_day (5) is used up", retryAfterS: 77, details }) as const;
  const { post, native, streams, admitted } = house(undefined, { ...NO_QUOTAS, verdict });
  const { status, retryAfter, answer } = await post("not even JSON");
  expect([status, retryAfter, answer.error]).toEqual([429, "77", expect.objectContaining({ code: "quota_exceeded", ...details })]);
  const request = { subject: "ingest.acme", payload: Buffer.from("{}"), header: () => undefined, reply: "_INBOX.x", sender: undefined };
  expect(await native(request)).toEqual({ error: expect.objectContaining({ code: 429, err_code: 10_167, ...details }) });
  expect([streams.flat(), admitted.held]).toEqual([[], 0]);
});

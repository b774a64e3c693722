// Ingestion over NATS as a producer sees it: requests, JetStream publishes and plain publishes on `ingest.<tenant>`.

import { gzipSync } from "node:zlib";
import type { NatsConnection } from "nats";
import { connect, headers as natsHeaders } from "nats";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { Installation } from "./gateway.ts";

let relog: Installation;
let producer: NatsConnection;
beforeAll(async () => {
  relog = await Installation.start();
  producer = await connect({ servers: relog.stack.natsUrl, token: relog.key });
});
afterAll(async () => {
  await producer?.close();
  await relog?.[Symbol.asyncDispose]();
});

const SUBJECT = "ingest.default";
const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const NDJSON = '{"message":"a"}\n{"message":"b"}\n';

async function request(payload: string | Buffer, header: Record<string, string> = {}, subject = SUBJECT) {
  const headers = natsHeaders();
  for (const [name, value] of Object.entries(header)) headers.set(name, value);
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
  return (await producer.request(subject, payload, { headers, timeout: 10_000 })).json<any>();
}

test("a request is answered with an acknowledgement of JetStream's shape and the receipt's fields", async () => {
  const answer = await request(NDJSON);
  expect(answer).toEqual({
    id: expect.stringMatching(ULID),
    stream: expect.stringMatching(/^LOGS_[01]$/),
    seq: expect.any(Number),
    accepted: 2,
    rejected: 0,
    errors: [],
  });
  expect((await relog.rows(answer.id, 2, "message, tenant")).map((row) => [row.message, row.tenant])).toEqual([
    ["a", "default"],
    ["b", "default"],
  ]);
});

test("a JetStream publish gets a PubAck; its message id is the idempotency key", async () => {
  const jetstream = producer.jetstream();
  const first = await jetstream.publish(SUBJECT, NDJSON, { msgID: "order-17" });
  const again = await jetstream.publish(SUBJECT, NDJSON, { msgID: "order-17" });
  expect([first.stream, first.seq, first.duplicate]).toEqual([expect.stringMatching(/^LOGS_[01]$/), expect.any(Number), false]);
  expect([again.stream, again.seq, again.duplicate]).toEqual([first.stream, first.seq, true]);
  await expect(jetstream.publish(SUBJECT, '{"message":"c"}', { msgID: "order-17" })).rejects.toMatchObject({
    api_error: { code: 422, err_code: 10_003, description: expect.stringContaining("idempotency_key_reused") },
  });
});

test("the key is the same over HTTP and NATS", async () => {
  const over = await request('{"message":"once"}', { "Idempotency-Key": "both" });
  const { json } = await relog.post('{"message":"once"}', { "idempotency-key": "both" });
  expect(json).toMatchObject({ id: over.id, seq: over.seq, duplicate: true });
});

test("gzip and renames by header", async () => {
  const answer = await request(gzipSync('{"text_of_it":"m"}'), { "Content-Encoding": "gzip", "Message-Field": "text_of_it" });
  expect(await relog.rows(answer.id, 1, "message")).toEqual([{ message: "m" }]);
});

test("a plain publish is stored", async () => {
  producer.publish(SUBJECT, '{"message":"fire and forget"}');
  await producer.flush();
  await waitFor("it", async () =>
    (await relog.sql("SELECT 1 FROM relog_g1.logs WHERE body = 'fire and forget'")).length === 1 ? true : undefined,
  );
});

test("bad records are listed, good ones stored", async () => {
  expect(await request('{"n":1}\n{\n')).toMatchObject({ accepted: 1, rejected: 1, errors: [{ line: 2, code: "invalid_json" }] });
});

describe("errors have JetStream's shape", () => {
  const cases: [name: string, code: number, description: RegExp, call: () => Promise<unknown>][] = [
    ["nothing", 400, /^empty_body/, () => request("")],
    ["all bad", 400, /^all_rejected/, () => request("{")],
    ["not gzip", 400, /^bad_encoding/, () => request("{}", { "Content-Encoding": "gzip" })],
    ["unknown encoding", 415, /^unsupported_media_type/, () => request("{}", { "Content-Encoding": "br" })],
    ["unknown type", 415, /^unsupported_media_type/, () => request("{}", { "Content-Type": "application/x-protobuf" })],
    ["a bad key", 400, /^idempotency_key_invalid/, () => request("{}", { "Nats-Msg-Id": "a b" })],
  ];
  for (const [name, code, description, call] of cases) {
    test(name, async () => {
      expect(await call()).toEqual({
        error: expect.objectContaining({
          code,
          err_code: expect.any(Number),
          description: expect.stringMatching(description),
          help: expect.stringMatching(/./),
        }),
      });
    });
  }
});

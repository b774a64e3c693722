// POST /v1/ingest as a producer sees it: a real gateway, and what is in the table afterwards.

import { deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Installation } from "./gateway.ts";

let relog: Installation;
let small: Installation;
beforeAll(async () => {
  [relog, small] = await Promise.all([
    Installation.start(),
    Installation.start({ RELOG_MESSAGE_BYTES_MAX: "1KiB", RELOG_BODY_BYTES_MAX: "64KiB" }),
  ]);
});
afterAll(async () => {
  await Promise.all([relog?.[Symbol.asyncDispose](), small?.[Symbol.asyncDispose]()]);
});

const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const NDJSON = '{"message":"a"}\n{"message":"b"}\n';

describe("bodies", () => {
  const cases: [name: string, body: string | Buffer, headers: Record<string, string>, accepted: number][] = [
    ["NDJSON", NDJSON, {}, 2],
    ["NDJSON without a last newline", NDJSON.trimEnd(), {}, 2],
    ["NDJSON with CRLF and empty lines", '{"message":"a"}\r\n\r\n \n{"message":"b"}\r\n', {}, 2],
    ["an array", '[{"message":"a"},{"message":"b"}]', { "content-type": "application/json" }, 2],
    ["an array over several lines", '[\n  {"message":"a"},\n  {\n"message":"b"}\n]\n', { "content-type": "application/json" }, 2],
    ["one object", '{"message":"a"}', { "content-type": "application/json" }, 1],
    ["one object over several lines", '{\n  "message": "a",\n  "n": 1\n}\n', { "content-type": "application/json" }, 1],
    ["curl -d's type", NDJSON, { "content-type": "application/x-www-form-urlencoded" }, 2],
    ["no type", NDJSON, { "content-type": "" }, 2],
    ["text/plain", NDJSON, { "content-type": "text/plain; charset=utf-8" }, 2],
    ["gzip", gzipSync(NDJSON), { "content-encoding": "gzip" }, 2],
    ["x-gzip", gzipSync(NDJSON), { "content-encoding": "x-gzip" }, 2],
    ["zstd", zstdCompressSync(NDJSON), { "content-encoding": "zstd" }, 2],
    ["deflate", deflateSync(NDJSON), { "content-encoding": "deflate" }, 2],
    ["GZIP in capitals", gzipSync(NDJSON), { "content-encoding": "GZIP" }, 2],
    ["identity", NDJSON, { "content-encoding": "identity" }, 2],
  ];
  for (const [name, body, headers, accepted] of cases) {
    test(name, async () => {
      const { status, json } = await relog.post(body, headers);
      expect([status, json]).toEqual([
        200,
        {
          id: expect.stringMatching(ULID),
          stream: expect.stringMatching(/^LOGS_[01]$/),
          seq: expect.any(Number),
          accepted,
          rejected: 0,
          errors: [],
        },
      ]);
      expect((await relog.rows(json.id, accepted, "message, line")).map((row) => row.message)).toEqual(["a", "b"].slice(0, accepted));
    });
  }
});

describe("fields", () => {
  const T = "2026-01-02T03:04:05.678Z";
  const cases: [name: string, record: string, query: string, expected: Record<string, unknown>][] = [
    [
      "the first names",
      `{"timestamp":"${T}","message":"m","level":"warn","service":"s","host":"h","event_name":"e"}`,
      "",
      {
        time: "2026-01-02 03:04:05.678000000",
        message: "m",
        level: "warn",
        severity_text: "warn",
        severity_number: 13,
        service: "s",
        host: "h",
        event_name: "e",
        attributes: {},
      },
    ],
    [
      "other names",
      `{"@timestamp":"${T}","msg":"m","severity":"ERROR","app":"s","hostname":"h"}`,
      "",
      {
        time: "2026-01-02 03:04:05.678000000",
        message: "m",
        level: "error",
        severity_text: "ERROR",
        service: "s",
        host: "h",
        attributes: {},
      },
    ],
    [
      "nested names",
      '{"service":{"name":"s"},"host":{"name":"h"},"log":{"level":"debug"},"trace":{"id":"0123456789ABCDEF0123456789abcdef"}}',
      "",
      { service: "s", host: "h", level: "debug", trace_id: "0123456789abcdef0123456789abcdef" },
    ],
    ["pino's level", '{"level":50,"msg":"m"}', "", { level: "error", severity_text: "50", severity_number: 17 }],
    [
      "a severity number beats a text",
      '{"level":"info","severity_number":21}',
      "",
      { level: "fatal", severity_number: 21, severity_text: "info" },
    ],
    ["the loser of two names stays", '{"msg":"second","message":"first"}', "", { message: "first", attributes: { msg: "second" } }],
    [
      "a trace id that is none stays",
      '{"trace_id":"xyz","span_id":"0123456789abcdef"}',
      "",
      { trace_id: "", span_id: "0123456789abcdef", attributes: { trace_id: "xyz" } },
    ],
    [
      "nesting is flattened",
      '{"a":{"b":{"c":1},"d":[1,{"e":2}],"f":{}},"g":null,"h":true}',
      "",
      { attributes: { "a.b.c": "1", "a.d": '[1,{"e":2}]', "a.f": "{}", g: "null", h: "true" }, attribute_types: "njjjb" },
    ],
    ["resource", '{"resource":{"service.name":"s","region":"eu"}}', "", { service: "s", resource: { region: "eu" } }],
    ["message renamed", '{"text_of_it":"m","message":"x"}', "?message_field=text_of_it", { message: "m", attributes: { message: "x" } }],
    ["several names", '{"b":"m"}', "?message_field=a,b", { message: "m" }],
    [
      "time renamed",
      '{"when":1767323045,"timestamp":"x"}',
      "?time_field=when",
      { time: "2026-01-02 03:04:05.000000000", attributes: { timestamp: "x" } },
    ],
    ["a renamed field takes the name away from others", '{"message":"api"}', "?service_field=message", { service: "api", message: "" }],
    [
      "numbers beyond 2^53 are exact",
      '{"n":9007199254740993,"m":123456789012345678901234567890.10,"e":1E400}',
      "",
      { attributes: { n: "9007199254740993", m: "123456789012345678901234567890.10", e: "1E400" }, attribute_types: "nnn" },
    ],
    ["duplicate keys are all kept", '{"k":1,"k":"two","k":3}', "", { attributes: { "k~1": "1", "k~2": "two", k: "3" } }],
    [
      "__proto__ is a key",
      '{"__proto__":{"x":1},"constructor":"c","toString":"t"}',
      "",
      { attributes: JSON.parse('{"__proto__.x":"1","constructor":"c","toString":"t"}') },
    ],
    [
      "text of every kind",
      '{"message":"\\u00e4 \\ud83d\\ude00 \\"\\\\\\/ ä 😀","k\\u00e4":"v"}',
      "",
      { message: 'ä 😀 "\\/ ä 😀', attributes: { kä: "v" } },
    ],
  ];
  for (const [name, record, query, expected] of cases) {
    test(name, async () => {
      const { status, json } = await relog.post(record, {}, query);
      expect([status, json.errors]).toEqual([200, []]);
      const columns =
        "message, level, time, severity_text, severity_number, service, host, event_name, trace_id, span_id, attributes, attribute_types, resource";
      expect((await relog.rows(json.id, 1, columns))[0]).toMatchObject(expected);
    });
  }
});

describe("times", () => {
  const cases: [sent: string, stored: string][] = [
    ['"2026-01-02T03:04:05Z"', "2026-01-02 03:04:05.000000000"],
    ['"2026-01-02T03:04:05.123456789Z"', "2026-01-02 03:04:05.123456789"],
    ['"2026-01-02T03:04:05.1234567891Z"', "2026-01-02 03:04:05.123456789"],
    ['"2026-01-02T03:04:05+02:30"', "2026-01-02 00:34:05.000000000"],
    ['"2026-01-02 03:04:05,5"', "2026-01-02 03:04:05.500000000"],
    ["1767323045", "2026-01-02 03:04:05.000000000"],
    ["1767323045.25", "2026-01-02 03:04:05.250000000"],
    ["1767323045678", "2026-01-02 03:04:05.678000000"],
    ["1767323045678901", "2026-01-02 03:04:05.678901000"],
    ["1767323045678901234", "2026-01-02 03:04:05.678901234"],
    ['"1767323045678901234"', "2026-01-02 03:04:05.678901234"],
    ["0", "1970-01-01 00:00:00.000000000"],
  ];
  test("in every form", async () => {
    const { json } = await relog.post(cases.map(([sent]) => `{"time":${sent}}`).join("\n"));
    expect(json).toMatchObject({ accepted: cases.length, errors: [] });
    const rows = await relog.rows(json.id, cases.length, "time");
    expect(rows.map((row, i) => [cases[i]![0], row.time])).toEqual(cases);
  });

  test("none is the time of arrival", async () => {
    const before = Date.now();
    const { json } = await relog.post('{"message":"now"}');
    const [row] = await relog.rows(json.id, 1, "toUnixTimestamp64Milli(timestamp) AS ms");
    expect(Number(row!.ms)).toBeGreaterThanOrEqual(before - 1);
    expect(Number(row!.ms)).toBeLessThanOrEqual(Date.now());
  });

  test("that cannot be are refused with their reason", async () => {
    const bad = ['"yesterday"', '"2026-02-30"', "-1", '"1969-12-31T23:59:59Z"', '"2099-01-01T00:00:00Z"'];
    const { status, json } = await relog.post(`${bad.map((time) => `{"time":${time}}`).join("\n")}\n{"time":1}`);
    expect([status, json.accepted]).toEqual([200, 1]);
    expect(json.errors.map((error: { line: number; code: string }) => [error.line, error.code])).toEqual([
      [1, "timestamp_invalid"],
      [2, "timestamp_invalid"],
      [3, "timestamp_invalid"],
      [4, "timestamp_invalid"],
      [5, "timestamp_in_future"],
    ]);
  });
});

describe("bad records", () => {
  const cases: [line: string, code: string][] = [
    ["{", "invalid_json"],
    ['{"a":1,}', "invalid_json"],
    ["{'a':1}", "invalid_json"],
    ['{"a":1} {"b":2}', "invalid_json"],
    ['{"a":01}', "invalid_json"],
    ['{"a":NaN}', "invalid_json"],
    ['{"a":"\\x"}', "invalid_json"],
    ["not json", "not_an_object"],
    ['"text"', "not_an_object"],
    ["17", "not_an_object"],
    ["null", "not_an_object"],
    ['{"a":"no end}', "invalid_json"],
  ];
  for (const [line, code] of cases) {
    test(`${line} between two good ones`, async () => {
      const { status, json } = await relog.post(`{"n":1}\n${line}\n{"n":2}\n`);
      expect([status, json.accepted, json.rejected]).toEqual([200, 2, 1]);
      expect(json.errors).toEqual([{ line: 2, code, message: expect.stringMatching(/./) }]);
      expect(await relog.rows(json.id, 2, "line, attributes['n'] AS n")).toEqual([
        { line: 0, n: "1" },
        { line: 1, n: "2" },
      ]);
    });
  }

  test("at most twenty are listed, all are counted", async () => {
    const { json } = await relog.post(`${"{\n".repeat(50)}{"n":1}`);
    expect([json.accepted, json.rejected, json.errors.length]).toEqual([1, 50, 20]);
  });

  test("a broken array keeps what came before", async () => {
    const { status, json } = await relog.post('[{"n":1},{"n":2},{"n":}]');
    expect([status, json.accepted, json.errors]).toEqual([
      200,
      2,
      [{ line: 3, code: "invalid_json", message: expect.stringContaining("the rest of the array was not read") }],
    ]);
  });
});

describe("refused calls", () => {
  const big = Buffer.alloc(70 * 1024, "x");
  const cases: [name: string, code: string, status: number, call: () => Promise<{ status: number; headers: Headers; json: unknown }>][] = [
    ["all records bad", "all_rejected", 400, () => relog.post("{\n}x\n")],
    ["an empty body", "empty_body", 400, () => relog.post("")],
    ["an empty array", "empty_body", 400, () => relog.post("[]")],
    ["only white space", "empty_body", 400, () => relog.post(" \n\n ")],
    ["an unknown parameter", "bad_request", 400, () => relog.post(NDJSON, {}, "?messagefield=m")],
    ["an empty rename", "bad_request", 400, () => relog.post(NDJSON, {}, "?message_field=")],
    ["another key", "unauthenticated", 401, () => relog.post(NDJSON, { authorization: "Bearer nope" })],
    ["no key", "unauthenticated", 401, () => relog.post(NDJSON, { authorization: "" })],
    ["Basic", "unauthenticated", 401, () => relog.post(NDJSON, { authorization: "Basic YTpi" })],
    ["GET", "method_not_allowed", 405, () => relog.post("", {}, "", "GET")],
    ["PUT", "method_not_allowed", 405, () => relog.post(NDJSON, {}, "", "PUT")],
    ["another path", "not_found", 404, () => relog.post(NDJSON, {}, "/x")],
    ["an unknown encoding", "unsupported_media_type", 415, () => relog.post(NDJSON, { "content-encoding": "br" })],
    ["a foreign type", "unsupported_media_type", 415, () => relog.post(NDJSON, { "content-type": "multipart/form-data; boundary=x" })],
    ["not what the encoding says", "bad_encoding", 400, () => relog.post(NDJSON, { "content-encoding": "gzip" })],
    ["a body over the bound", "body_too_large", 413, () => small.post(big)],
    ["an idempotency key with a blank", "idempotency_key_invalid", 400, () => relog.post(NDJSON, { "idempotency-key": "a b" })],
    [
      "an idempotency key of 201 characters",
      "idempotency_key_invalid",
      400,
      () => relog.post(NDJSON, { "idempotency-key": "k".repeat(201) }),
    ],
  ];
  for (const [name, code, status, call] of cases) {
    test(`${name}: ${status} ${code}`, async () => {
      const answer = await call();
      expect([answer.status, answer.json]).toEqual([
        status,
        { error: expect.objectContaining({ code, message: expect.stringMatching(/./), help: expect.stringMatching(/./) }) },
      ]);
      expect(answer.headers.get("content-type")).toMatch(/^application\/json/);
      if (status === 405) expect(answer.headers.get("allow")).toBe("POST");
    });
  }

  test("X-API-Key is as good as a bearer", async () => {
    expect((await relog.post(NDJSON, { authorization: "", "x-api-key": relog.key })).status).toBe(200);
  });
});

describe("idempotency", () => {
  for (const [name, at, records] of [
    ["one message", () => relog, 3],
    ["several messages", () => small, 60],
  ] as const) {
    test(`the same key and body: one receipt, stored once (${name})`, async () => {
      const body = Array.from({ length: records }, (_, i) => `{"message":"${"x".repeat(60)}","n":${i}}`).join("\n");
      const headers = { "idempotency-key": `same-${records}` };
      const answers = [await at().post(body, headers), ...(await Promise.all([at().post(body, headers), at().post(body, headers)]))];
      expect(answers.map((answer) => answer.status)).toEqual([200, 200, 200]);
      const [first, ...again] = answers.map((answer) => answer.json);
      for (const receipt of again) expect(receipt).toEqual({ ...first, duplicate: true });
      if (records > 3) {
        expect(first.parts.length).toBeGreaterThan(1);
        expect(first.parts[0]).toEqual({ stream: first.stream, seq: first.seq });
      } else expect(first.parts).toBeUndefined();
      const rows = await at().rows(first.id, records, "line, attributes['n'] AS n");
      expect(rows).toEqual(Array.from({ length: records }, (_, line) => ({ line, n: String(line) })));
      expect(await at().sql(`SELECT count() AS n FROM relog_g1.logs WHERE attributes['n'] != '' AND length(body) = 60`)).toEqual([
        { n: String(records) },
      ]);
    });
  }

  test("another body under the same key is refused and not stored", async () => {
    const headers = { "idempotency-key": "body" };
    const first = await relog.post('{"message":"one"}', headers);
    const { status, json } = await relog.post('{"message":"another body"}', headers);
    expect([status, json.error.code, json.error.message]).toEqual([422, "idempotency_key_reused", expect.stringContaining(first.json.id)]);
    await relog.rows((await relog.post('{"message":"behind it"}', { "idempotency-key": "behind" })).json.id, 1);
    expect(await relog.sql("SELECT count() AS n FROM relog_g1.logs WHERE body = 'another body'")).toEqual([{ n: "0" }]);
  });
});

test("a batch over three hundred days is stored whole", async () => {
  const begin = Date.UTC(2025, 0, 1, 12);
  const lines = Array.from({ length: 600 }, (_, i) => `{"time":${begin + Math.floor(i / 2) * 86_400_000},"n":${i}}`);
  const { json } = await relog.post(lines.join("\n"));
  expect(json.accepted).toBe(600);
  const rows = await relog.rows(json.id, 600, "line, attributes['n'] AS n, toDate(timestamp) AS day");
  expect(rows.map((row) => row.n)).toEqual(lines.map((_, i) => String(i)));
  expect(new Set(rows.map((row) => row.day)).size).toBe(300);
});

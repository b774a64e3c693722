// Too many attributes: what stays, what overflows, and that messages are cut alike whatever overflows.

import fc from "fast-check";
import { expect, it } from "vitest";
import { encodeBlock } from "../event/batch.ts";
import { decodeBatch } from "../event/decode.ts";
import type { Collector } from "./collect.ts";
import { collect } from "./collect.ts";
import { decodeNdjson } from "./ndjson/decode.ts";
import { FieldMap } from "./ndjson/fields.ts";
import { SETTINGS } from "./ndjson/testing.ts";
import type { TenantAttributes } from "./overflow.ts";
import { ANY_ATTRIBUTES } from "./overflow.ts";

const NOW_MS = Date.parse("2026-01-02T03:04:05Z");
const BOUNDS = { ...SETTINGS, recordBytesMax: 100_000, messageBytesMax: 4_000, errorsReportedMax: 3 };
const BATCH = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

const only = (names: readonly string[], perRecordMax = 1_000): TenantAttributes => ({
  perRecordMax,
  admits: (name) => names.includes(Buffer.from(name, "latin1").toString("utf8")),
});

const collected = (body: string, attributes: TenantAttributes): Collector =>
  collect(BOUNDS, (limits, out) => decodeNdjson(Buffer.from(body), new FieldMap(), limits, out), NOW_MS, attributes);

async function recordsOf(collector: Collector) {
  const blocks = collector.blocks.map(({ builder, firstLine }) => builder.finish("acme", BATCH, NOW_MS, firstLine));
  const frames = await Promise.all(blocks.map(encodeBlock));
  return (await Promise.all(frames.map((frame) => decodeBatch(frame, 2 ** 24)))).flat();
}

const json = (value: unknown): string => JSON.stringify(value);

it.each<[what: string, sent: object, attributes: TenantAttributes, kept: object, resource: object, overflow: object | undefined]>([
  ["nothing is beyond", { a: 1, b: "x" }, only(["a", "b"]), { a: { number: "1" }, b: "x" }, {}, undefined],
  ["a name that the day does not have", { a: 1, b: "x" }, only(["a"]), { a: { number: "1" } }, {}, { b: "x" }],
  [
    "values keep their kind",
    { s: 'q"\\\n\u0001', n: 1.5e300, t: true, z: null, l: [1, "é"] },
    only([]),
    {},
    {},
    { s: 'q"\\\n\u0001', n: 1.5e300, t: true, z: null, l: [1, "é"] },
  ],
  ["names and values beyond ASCII", { grüße: "世界 🎉" }, only([]), {}, {}, { grüße: "世界 🎉" }],
  ["nested names are flat", { http: { code: 500 } }, only([]), {}, {}, { "http.code": 500 }],
  [
    "more than a record may have",
    { a: 1, b: 2, c: 3 },
    { ...ANY_ATTRIBUTES, perRecordMax: 2 },
    { a: { number: "1" }, b: { number: "2" } },
    {},
    { c: 3 },
  ],
  [
    "resource attributes stay longest",
    { a: 1, resource: { r: "x", q: "y" } },
    { ...ANY_ATTRIBUTES, perRecordMax: 1 },
    {},
    { r: "x" },
    { "resource.q": "y", a: 1 },
  ],
  [
    "an attribute of that name joins the others",
    { overflow: "mine", a: 1, b: 2 },
    only(["overflow", "a"]),
    { a: { number: "1" } },
    {},
    { overflow: "mine", b: 2 },
  ],
  ["an attribute of that name alone is left alone", { overflow: "mine" }, only(["overflow"]), { overflow: "mine" }, {}, undefined],
])("%s", async (_what, sent, attributes, kept, resource, overflow) => {
  const text = json(sent);
  const [record] = await recordsOf(collected(text, attributes));
  const { overflow: moved, ...rest } = record!.attributes;
  if (overflow === undefined) expect(record!.attributes).toEqual(kept);
  else {
    expect(rest).toEqual(kept);
    expect(JSON.parse((moved as { json: string }).json)).toEqual(overflow);
  }
  expect(record!.resource).toEqual(resource);
});

it("what moved is counted by the limit", () => {
  const body = [{ a: 1, b: 2, c: 3, overflow: 1 }, { a: 1 }, { b: 1 }].map(json).join("\n");
  expect([...collected(body, only(["a", "overflow"], 2)).overflowed]).toEqual([
    ["attribute_names_per_day", 2],
    ["attributes_per_record", 2],
  ]);
  expect(collected(body, ANY_ATTRIBUTES).overflowed.size).toBe(0);
});

it("the installation's limit holds whatever the tenant's is; ten times as many are refused", async () => {
  const wide = (count: number): string => json(Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, i])));
  const collector = collected(`${wide(20)}\n${wide(21)}\n${wide(200)}\n${wide(201)}`, ANY_ATTRIBUTES);
  expect(collector.errors).toEqual([
    { line: 4, code: "too_many_attributes", message: expect.stringContaining("RELOG_RECORD_ATTRIBUTES_MAX") },
  ]);
  const counts = (await recordsOf(collector)).map(({ attributes }) => Object.keys(attributes).length);
  expect(counts).toEqual([20, 21, 21]);
});

it("messages are cut in the same places whatever overflows, and hold the same records", async () => {
  const name = fc.constantFrom(..."abcdefghij".split("").map((letter) => letter.repeat(5)));
  const record = fc.dictionary(name, fc.oneof(fc.string(), fc.integer(), fc.boolean()), { maxKeys: 8 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(record, { minLength: 1, maxLength: 120 }),
      fc.subarray("abcdefghij".split("")),
      fc.integer({ min: 1, max: 6 }),
      async (sent, letters, max) => {
        const body = sent.map((one) => json({ message: "x".repeat(100), ...one })).join("\n");
        const plain = collected(body, ANY_ATTRIBUTES);
        const over = collected(
          body,
          only(
            letters.map((letter) => letter.repeat(5)),
            max,
          ),
        );
        expect(over.blocks.map(({ firstLine, rawBytes }) => [firstLine, rawBytes])).toEqual(
          plain.blocks.map(({ firstLine, rawBytes }) => [firstLine, rawBytes]),
        );
        const whole = (all: Awaited<ReturnType<typeof recordsOf>>) =>
          all.map(({ attributes }) => {
            const { overflow, ...rest } = attributes;
            const read = Object.entries(rest).map(([key, value]) => [
              key,
              typeof value === "object" ? JSON.parse(Object.values(value)[0] as string) : value,
            ]);
            const moved = overflow === undefined ? {} : JSON.parse((overflow as { json: string }).json);
            return { ...Object.fromEntries(read), ...moved };
          });
        expect(whole(await recordsOf(over))).toEqual(whole(await recordsOf(plain)));
      },
    ),
    { numRuns: 60 },
  );
});

it("texts that a dictionary would have saved do not make a message much larger", () => {
  const long = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`${"n".repeat(60)}${i}`, 1]));
  const body = Array.from({ length: 400 }, () => json(long)).join("\n");
  const { blocks } = collected(body, only([]));
  expect(blocks.length).toBeGreaterThan(10);
  for (const { builder } of blocks) expect(builder.size).toBeLessThan(BOUNDS.messageBytesMax * 5);
});

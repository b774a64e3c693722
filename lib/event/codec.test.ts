// The codec on arbitrary records, and on bytes that are no blocks.

import { constants, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { expect, it } from "vitest";
import { BatchBuilder, COLUMNS_V1, encodeBlock, STRUCTURE_V1 } from "./batch.ts";
import { decodeBatch, draftOf } from "./decode.ts";
import type { AttributeValue, CanonicalRecord } from "./record.ts";
import { canonicalRecord, RecordDraft } from "./record.ts";
import { fromBytes, toBytes } from "./text.ts";

const BATCH = "01JGFJJZ008XQVG3S7J5X9TN4W";
const OBSERVED_MS = 1_735_689_600_123;
const text = fc.string({ unit: "grapheme", maxLength: 40 });
const number = fc.oneof(fc.integer().map(String), fc.double({ noNaN: true, noDefaultInfinity: true }).map(String), fc.bigInt().map(String));
const value: fc.Arbitrary<AttributeValue> = fc.oneof(
  text,
  fc.boolean(),
  fc.record({ number }, { noNullPrototype: true }),
  fc.record({ json: fc.json() }, { noNullPrototype: true }),
);
const values = fc.dictionary(text, value, { maxKeys: 5, noNullPrototype: true });
const hex = (length: number) =>
  fc.oneof(
    fc.constant(""),
    fc.array(fc.constantFrom(..."0123456789abcdef"), { minLength: length, maxLength: length }).map((digits) => digits.join("")),
  );
const fields = fc.record({
  timestamp: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }).map(String),
  observed_timestamp: fc.constant(String(BigInt(OBSERVED_MS) * 1_000_000n)),
  severity_number: fc.integer({ min: 0, max: 24 }),
  severity_text: text,
  service: text,
  host: text,
  event_name: text,
  body: fc.oneof(text, fc.string({ unit: "binary", maxLength: 300 })),
  attributes: values,
  resource: values,
  trace_id: hex(32),
  span_id: hex(16),
  batch: fc.constant(BATCH),
});

function build(records: readonly CanonicalRecord[], lines: number | readonly number[] = 0) {
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (const record of records) {
    draftOf(record, draft);
    builder.add(draft);
  }
  const estimate = builder.bytes;
  const block = builder.finish("acme", BATCH, OBSERVED_MS, lines);
  // Column names, types and LowCardinality heads are a constant.
  expect(block.bytes.length).toBeLessThanOrEqual(estimate + 4096);
  return block;
}

const numbered = (records: readonly Omit<CanonicalRecord, "line">[]): CanonicalRecord[] =>
  records.map((record, line) => ({ ...record, line }));
const plain = (records: unknown): unknown => JSON.parse(JSON.stringify(records));
const withTenant = (records: readonly CanonicalRecord[]) => plain(records.map((record) => ({ ...record, tenant: "acme" })));

it("arbitrary records come back equal", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fields, { minLength: 1, maxLength: 30 }).map(numbered), async (records) => {
      for (const record of records) canonicalRecord.parse(record);
      expect(plain(await decodeBatch(await encodeBlock(build(records)), 2 ** 24))).toEqual(withTenant(records));
    }),
    { numRuns: 150 },
  );
});

it.each([1, 255, 256, 257, 3000, 65_536, 65_537])("%i distinct values come back equal, whatever the index width", async (count) => {
  const base = { ...fc.sample(fields, { seed: 7, numRuns: 1 })[0]!, attributes: {}, resource: {} };
  const records = numbered(
    Array.from({ length: count }, (_, i) => ({ ...base, service: `s${i}`, attributes: { [`k${i % 300}`]: `${i}` } })),
  );
  const decoded = await decodeBatch(await encodeBlock(build(records)), 2 ** 26);
  expect(decoded.length).toBe(count);
  expect(decoded.every((record, i) => record.service === `s${i}` && record.attributes[`k${i % 300}`] === `${i}` && record.line === i)).toBe(
    true,
  );
});

it("lines may be given one by one", async () => {
  const records = numbered(fc.sample(fields, { seed: 1, numRuns: 3 }));
  const decoded = await decodeBatch(await encodeBlock(build(records, [4, 9, 4_294_967_295])), 2 ** 24);
  expect(decoded.map((record) => record.line)).toEqual([4, 9, 4_294_967_295]);
});

it("a block beyond the caller's bound is refused", async () => {
  const frame = await encodeBlock(build(numbered(fc.sample(fields, { seed: 2, numRuns: 50 }))));
  await expect(decodeBatch(frame, 1000)).rejects.toThrow(Error);
});

it("mutated blocks are refused with an Error or decode to records, and never cost more than they hold", async () => {
  const block = build(numbered(fc.sample(fields, { seed: 3, numRuns: 20 })));
  const original = Buffer.from(block.bytes);
  block.release();
  const edit = fc.record({ at: fc.nat(original.length - 1), kind: fc.constantFrom("set", "insert", "delete", "cut"), byte: fc.nat(255) });
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 4 }), async (edits) => {
      let bytes = original;
      for (const { at, kind, byte } of edits) {
        const head = bytes.subarray(0, at);
        if (kind === "set") bytes = Buffer.concat([head, Buffer.of(byte), bytes.subarray(at + 1)]);
        else if (kind === "insert") bytes = Buffer.concat([head, Buffer.of(byte), bytes.subarray(at)]);
        else if (kind === "delete") bytes = Buffer.concat([head, bytes.subarray(at + 1)]);
        else bytes = head;
      }
      const outcome = await decodeBatch(zstdCompressSync(bytes), 2 ** 20).then(
        (records) => records.length,
        (error: unknown) => error,
      );
      // A count that cannot be is refused before anything is allocated: "Invalid array length" would be the engine's own refusal.
      if (typeof outcome === "number") expect(outcome).toBeLessThanOrEqual(bytes.length);
      else expect(String(outcome)).toMatch(/^(RangeError|Error): (?!Invalid)/);
    }),
    { numRuns: 2000 },
  );
});

it.each([
  ["nothing", Buffer.alloc(0)],
  ["no frame", Buffer.from("hello world, this is no zstd")],
  ["an empty block", zstdCompressSync(Buffer.alloc(0))],
  ["another column count", zstdCompressSync(Buffer.of(16, 1))],
  [
    "2^40 rows",
    zstdCompressSync(Buffer.concat([Buffer.of(17, 128, 128, 128, 128, 128, 32), Buffer.from("\x06tenant\x16LowCardinality(String)")])),
  ],
])("%s is refused", async (_, payload) => {
  await expect(decodeBatch(payload, 2 ** 20)).rejects.toThrow(Error);
});

it("byte strings and texts are inverse", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (given) => {
      expect(fromBytes(toBytes(given))).toBe(given);
      expect(toBytes(given).length).toBe(Buffer.byteLength(given));
    }),
  );
  expect(fromBytes(toBytes("\ud800"))).toBe("\ufffd");
});

it("the columns of schema version 1 never change", () => {
  expect(COLUMNS_V1.length).toBe(17);
  expect(STRUCTURE_V1).toBe(
    "tenant LowCardinality(String), timestamp DateTime64(9), observed_timestamp DateTime64(9), severity_number UInt8, severity_text LowCardinality(String), " +
      "service LowCardinality(String), host LowCardinality(String), event_name LowCardinality(String), body String, " +
      "attributes Map(LowCardinality(String), String), attribute_types LowCardinality(String), resource Map(LowCardinality(String), String), " +
      "resource_types LowCardinality(String), trace_id String, span_id String, batch LowCardinality(String), line UInt32",
  );
});

it("a frame says its content size and has a checksum", async () => {
  const block = build(numbered(fc.sample(fields, { seed: 4, numRuns: 5 })));
  const size = block.bytes.length;
  const frame = await encodeBlock(block);
  const plainFrame = zstdCompressSync(Buffer.alloc(size), { pledgedSrcSize: size, params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  expect(frame[4]! & 0xc4).toBe(plainFrame[4]! & 0xc4);
  expect(frame[4]! & 4).toBe(4);
});

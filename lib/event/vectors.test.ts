// The published test vectors, both ways, and through the real engine.

import { readdirSync, readFileSync } from "node:fs";
import { zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startStack } from "../devstack/stack.ts";
import type { ClickHouse } from "../store/client.ts";
import { openClickHouse } from "../store/client.ts";
import { inserter } from "../store/insert.ts";
import { migrate, readMigrations } from "../store/migrate.ts";
import { BatchBuilder, encodeBlock } from "./batch.ts";
import { decodeBatch, draftOf } from "./decode.ts";
import { readEnvelope } from "./envelope.ts";
import type { AttributeValue, CanonicalRecord } from "./record.ts";
import { canonicalRecord, RecordDraft } from "./record.ts";

interface Vector {
  tenant: string;
  batch: string;
  observed_ms: number;
  first_line: number;
  records: CanonicalRecord[];
  headers: Record<string, string>;
  block_base64: string;
}

const FOLDER = "schemas/event/vectors";
const files = readdirSync(FOLDER).map((name) => [name, JSON.parse(readFileSync(`${FOLDER}/${name}`, "utf8")) as Vector] as const);

const stack = new AsyncDisposableStack();
let clickhouse: ClickHouse;
beforeAll(async () => {
  clickhouse = stack.use(openClickHouse(stack.use(await startStack({ env: process.env })).clickhouse!));
  await migrate(clickhouse, readMigrations("schemas/clickhouse"), 1, "");
});
afterAll(() => stack.disposeAsync());

function build(vector: Vector) {
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (const record of vector.records) {
    draftOf(record, draft);
    builder.add(draft);
  }
  return builder.finish(vector.tenant, vector.batch, vector.observed_ms, vector.first_line);
}

it.each(files)("%s: records become the bytes", (_, vector) => {
  for (const record of vector.records) canonicalRecord.parse(record);
  const block = build(vector);
  expect(block.bytes.toString("base64") === vector.block_base64).toBe(true);
  const envelope = readEnvelope((name) => vector.headers[name] ?? "");
  expect(envelope).toMatchObject({
    tenant: vector.tenant,
    batch: vector.batch,
    firstLine: vector.first_line,
    records: vector.records.length,
  });
  expect(envelope).toMatchObject({ minTimestamp: block.minTimestamp, maxTimestamp: block.maxTimestamp });
  block.release();
});

it.each(files)("%s: the bytes become the records", async (_, vector) => {
  const frame = zstdCompressSync(Buffer.from(vector.block_base64, "base64"));
  const decoded = await decodeBatch(frame, 2 ** 24);
  expect(decoded).toEqual(vector.records.map((record) => ({ ...record, tenant: vector.tenant })));
});

const LETTERS: Record<string, (text: string) => AttributeValue> = {
  s: (text) => text,
  n: (number) => ({ number }),
  b: (text) => text === "true",
  j: (json) => ({ json }),
};

type Row = Record<string, unknown> & {
  attributes: [string, string][];
  attribute_types: string;
  resource: [string, string][];
  resource_types: string;
};

function recordOf({ attribute_types, resource_types, attributes, resource, ...row }: Row): unknown {
  const values = (pairs: [string, string][], types: string) =>
    Object.fromEntries(pairs.map(([key, value], i) => [key, LETTERS[types[i]!]!(value)]));
  return { ...row, attributes: values(attributes, attribute_types), resource: values(resource, resource_types) };
}

const SELECT = `SELECT tenant, toString(toUnixTimestamp64Nano(timestamp)) AS timestamp, toString(toUnixTimestamp64Nano(observed_timestamp)) AS observed_timestamp,
  severity_number, severity_text, service, host, event_name, body, CAST(attributes, 'Array(Tuple(String, String))') AS attributes, attribute_types,
  CAST(resource, 'Array(Tuple(String, String))') AS resource, resource_types, trace_id, span_id, batch, line FROM relog_g1.logs ORDER BY line FORMAT JSONEachRow`;

it.each(files)("%s: the engine stores the records", async (name, vector) => {
  await clickhouse.read({ statement: "TRUNCATE TABLE relog_g1.logs" });
  const frame = await encodeBlock(build(vector));
  const request = {
    database: "relog_g1",
    token: name,
    queryId: `${name}/0`,
    frames: [frame],
    records: vector.records.length,
    fenceMs: Date.now() + 60_000,
  };
  expect(await inserter(clickhouse)(request)).toEqual({ kind: "stored" });
  const text = (await clickhouse.read({ statement: SELECT })).toString("utf8");
  const rows = text.split("\n").filter((line) => line !== "");
  expect(rows.map((row) => recordOf(JSON.parse(row) as Row))).toEqual(
    vector.records.map((record) => ({ ...record, tenant: vector.tenant })),
  );
});

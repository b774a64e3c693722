// Usage on a real engine: what is counted, closed, kept and never made smaller.

import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startStack } from "../devstack/stack.ts";
import { BatchBuilder, encodeBlock } from "../event/batch.ts";
import { draftOf } from "../event/decode.ts";
import { newBatchId } from "../event/ids.ts";
import type { AttributeValue, CanonicalRecord } from "../event/record.ts";
import { RecordDraft } from "../event/record.ts";
import type { ClickHouse } from "./client.ts";
import { openClickHouse } from "./client.ts";
import { dropExpired, removeRows } from "./generation.ts";
import { engineTimeMs, inserter } from "./insert.ts";
import { generationDatabase, migrate, readMigrations } from "./migrate.ts";
import type { UsageStore } from "./usage.ts";
import { QUARTER_MS, usageStore } from "./usage.ts";
import { OTHER_SERVICES } from "./usage-sql.ts";

const stack = new AsyncDisposableStack();
let clickhouse: ClickHouse;
let reader: ClickHouse;
let usage: UsageStore;
beforeAll(async () => {
  const address = stack.use(await startStack({ env: process.env })).clickhouse!;
  clickhouse = stack.use(openClickHouse(address));
  reader = stack.use(openClickHouse({ ...address, user: address.readerUser, password: address.readerPassword }));
  usage = usageStore(clickhouse);
  await usage.create();
  await usage.create();
  for (const generation of [1, 2, 3]) await migrate(clickhouse, readMigrations("schemas/clickhouse"), generation, "");
});
afterAll(() => stack.disposeAsync());

const T0 = Date.parse("2026-03-02T10:00:00Z");
const ask = async (statement: string, settings = {}): Promise<string> =>
  (await clickhouse.read({ statement, settings })).toString("utf8").trim();

interface Sent {
  readonly tenant?: string;
  readonly service?: string;
  readonly atMs?: number;
  readonly records?: number;
  readonly dayAgo?: number;
  readonly retention?: number;
}

/** Stores records of 3 bytes of body each. */
async function send(
  { tenant = "acme", service = "api", atMs = T0, records = 1, dayAgo = 0, retention = 0 }: Sent,
  generation = 1,
): Promise<void> {
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (let i = 0; i < records; i++) {
    draft.clear();
    draft.seconds = Math.floor(atMs / 1000) - dayAgo * 86_400;
    [draft.service, draft.body] = [service, "abc"];
    builder.add(draft);
  }
  const frame = await encodeBlock(builder.finish(tenant, newBatchId(atMs), atMs, 0));
  const insert = inserter(clickhouse);
  const token = newBatchId(Date.now());
  const fenceMs = (await engineTimeMs(clickhouse)) + 60_000;
  const outcome = await insert({
    database: generationDatabase(generation),
    token,
    queryId: `${token}/0`,
    frames: [frame],
    records,
    fenceMs,
    classes: { days: retention, tenants: {} },
  });
  expect(outcome.kind).toBe("stored");
}

const rowsOf = (tenant: string, more: object = {}) =>
  usage.rows({
    tenant,
    generation: 1,
    by: "hour",
    zone: "UTC",
    services: false,
    sinceMs: T0 - 86_400_000,
    untilMs: T0 + 86_400_000,
    align: false,
    rowsMax: 1_000,
    ...more,
  });
const recordsOf = async (tenant: string, more: object = {}) => (await rowsOf(tenant, more)).map(({ records }) => records);
const closedOnly = { generation: undefined };

const text = fc.oneof(fc.string({ unit: "grapheme", maxLength: 30 }), fc.string({ unit: "binary", maxLength: 30 }));
const value: fc.Arbitrary<AttributeValue> = fc.oneof(
  text,
  fc.boolean(),
  fc.record({ number: fc.double({ noNaN: true }).map(String) }, { noNullPrototype: true }),
  fc.record({ json: fc.json() }, { noNullPrototype: true }),
);
const values = fc.dictionary(text, value, { maxKeys: 6, noNullPrototype: true });
const record = fc.record({
  timestamp: fc.constant(String(BigInt(T0) * 1_000_000n)),
  observed_timestamp: fc.constant("0"),
  severity_number: fc.integer({ min: 0, max: 24 }),
  severity_text: text,
  service: text,
  host: text,
  event_name: text,
  body: text,
  attributes: values,
  resource: values,
  trace_id: fc.constantFrom("", "0123456789abcdef0123456789abcdef"),
  span_id: fc.constantFrom("", "0123456789abcdef"),
  batch: fc.constant("01JGFJJZ008XQVG3S7J5X9TN4W"),
  line: fc.constant(0),
});

it("a block's size is what the column `bytes` says of its records, whatever they hold", async () => {
  const insert = inserter(clickhouse);
  const fenceMs = (await engineTimeMs(clickhouse)) + 600_000;
  const stored = async (records: readonly CanonicalRecord[]): Promise<void> => {
    const [builder, draft, batch] = [new BatchBuilder(), new RecordDraft(), newBatchId(T0)];
    const sizes: number[] = [];
    for (const one of records) {
      const before = builder.size;
      draftOf(one, draft);
      builder.add(draft);
      sizes.push(builder.size - before);
    }
    const block = builder.finish("sizes", batch, T0, 0);
    expect(block.size).toBe(sizes.reduce((sum, size) => sum + size, 0));
    const outcome = await insert({
      database: generationDatabase(3),
      token: batch,
      queryId: `${batch}/0`,
      frames: [await encodeBlock(block)],
      records: records.length,
      fenceMs,
    });
    expect(outcome.kind).toBe("stored");
    const found = await ask(
      `SELECT groupArray(bytes) FROM (SELECT bytes FROM relog_g3.logs WHERE batch = '${batch}' ORDER BY line) FORMAT TSV`,
    );
    expect(JSON.parse(found)).toEqual(sizes);
  };
  await fc.assert(fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 20 }), stored), { numRuns: 40 });
});

it("the rollup is of the projection, which agrees with the rows", async () => {
  await send({ tenant: "p", records: 7 });
  await send({ tenant: "p", records: 2, atMs: T0 + QUARTER_MS, service: "" });
  const rollup =
    "SELECT toStartOfFifteenMinutes(observed_timestamp) AS quarter, service, count(), sum(bytes) FROM relog_g1.logs WHERE tenant = 'p' AND quarter >= toDateTime(0, 'UTC') GROUP BY quarter, service ORDER BY quarter FORMAT TSV";
  const told = await ask(rollup, { force_optimize_projection_name: "usage" });
  expect(told).toBe("2026-03-02 10:00:00\tapi\t7\t42\n2026-03-02 10:15:00\t\t2\t6");
  expect(await ask(rollup, { optimize_use_projections: 0 })).toBe(told);
});

it("answers by hour, day, month and service, in a time zone, of one tenant", async () => {
  for (const [hours, service] of [
    [0, "api"],
    [0, "web"],
    [1, "api"],
    [14, "api"],
  ] as const)
    await send({ tenant: "zones", service, atMs: T0 + hours * 3_600_000, records: 2 });
  await send({ tenant: "other", records: 50 });
  const at = (ms: number): string => new Date(ms).toISOString().slice(0, 16);
  const shown = async (more: object) =>
    (await rowsOf("zones", more)).map((row) => `${at(row.fromMs)} ${at(row.toMs)} ${row.service} ${row.records} ${row.bytes}`);
  expect(await shown({})).toEqual([
    "2026-03-02T10:00 2026-03-02T11:00  4 24",
    "2026-03-02T11:00 2026-03-02T12:00  2 12",
    "2026-03-03T00:00 2026-03-03T01:00  2 12",
  ]);
  expect(await shown({ by: "day", services: true })).toEqual([
    "2026-03-02T00:00 2026-03-03T00:00 api 4 24",
    "2026-03-02T00:00 2026-03-03T00:00 web 2 12",
    "2026-03-03T00:00 2026-03-04T00:00 api 2 12",
  ]);
  expect(await shown({ by: "day", zone: "America/New_York" })).toEqual(["2026-03-02T05:00 2026-03-03T05:00  8 48"]);
  expect(await shown({ by: "day", zone: "Asia/Kathmandu" })).toEqual([
    "2026-03-01T18:15 2026-03-02T18:15  6 36",
    "2026-03-02T18:15 2026-03-03T18:15  2 12",
  ]);
  expect(await shown({ zone: "Asia/Kathmandu", untilMs: T0 + QUARTER_MS })).toEqual(["2026-03-02T09:15 2026-03-02T10:15  4 24"]);
  // The day on which summer time begins has 23 hours.
  expect(await shown({ by: "month", zone: "Europe/Berlin", align: true, sinceMs: T0 })).toEqual([
    "2026-02-28T23:00 2026-03-31T22:00  8 48",
  ]);
  expect((await shown({ rowsMax: 1 })).length).toBe(1);
  expect(await usage.windows("zones", 1, "Asia/Kathmandu", T0 + 20 * 3_600_000)).toEqual({
    day: { fromMs: Date.parse("2026-03-02T18:15Z"), toMs: Date.parse("2026-03-03T18:15Z"), records: 2, bytes: 12 },
    month: { fromMs: Date.parse("2026-02-28T18:15Z"), toMs: Date.parse("2026-03-31T18:15Z"), records: 8, bytes: 48 },
    last: { records: 8, bytes: 48 },
  });
  expect(await usage.quarters("zones", 1, "UTC", T0, T0 + 86_400_000)).toMatchObject([
    { quarterMs: T0, dayMs: Date.parse("2026-03-02T00:00Z"), monthMs: Date.parse("2026-03-01T00:00Z"), records: 4, bytes: 24 },
    { records: 2 },
    { records: 2, dayMs: Date.parse("2026-03-03T00:00Z") },
  ]);
});

it("is closed, corrected by what comes late, and outlives its records", async () => {
  const since = T0 - 3_600_000;
  const closed = async () =>
    (await ask("SELECT max(records), max(bytes), max(closed) > 0 FROM relog.usage WHERE tenant = 'keep' FORMAT TSV")).split("\t");
  await send({ tenant: "keep", records: 5, retention: 3, dayAgo: 1 });
  await usage.close(1, since, T0 + QUARTER_MS - 1_000);
  expect(await closed()).toEqual(["5", "30", "0"]);
  expect(await usage.closedUntilMs()).toBe(T0 + QUARTER_MS - 1_000);
  await usage.close(1, since, T0 + QUARTER_MS);
  expect(await closed()).toEqual(["5", "30", "1"]);
  expect(await usage.close(1, since, T0 + QUARTER_MS)).toBe(0);
  // A projector that was down, a retried letter.
  await send({ tenant: "keep", records: 2, retention: 3, dayAgo: 1 });
  expect(await recordsOf("keep", closedOnly)).toEqual([5]);
  expect(await recordsOf("keep")).toEqual([7]);
  expect(await usage.close(1, since, T0)).toBe(1);
  expect(await usage.closedUntilMs()).toBe(T0 + QUARTER_MS);
  expect(await recordsOf("keep", closedOnly)).toEqual([7]);
  // Another generation that has only a part of it, and the records themselves leaving, change nothing.
  await send({ tenant: "keep", records: 3 }, 2);
  await usage.close(2, since, T0 + QUARTER_MS);
  const dropped = await dropExpired(clickhouse, 1, T0 + 10 * 86_400_000, "");
  expect(dropped.map(({ rows }) => rows)).toEqual([7]);
  await usage.close(1, since, T0 + 2 * QUARTER_MS);
  expect(await ask("SELECT count() FROM relog_g1.logs WHERE tenant = 'keep'")).toBe("0");
  expect(await recordsOf("keep")).toEqual([7]);
  expect(await usage.stored(1, "keep", T0, T0 + QUARTER_MS)).toEqual([
    { tenant: "keep", quarterMs: T0, service: "api", closed: { records: 7, bytes: 42 }, live: { records: 0, bytes: 0 } },
  ]);
  await ask("OPTIMIZE TABLE relog.usage FINAL");
  expect(await recordsOf("keep", closedOnly)).toEqual([7]);
});

it("a tenant whose records are removed keeps its usage", async () => {
  await send({ tenant: "gone", records: 4 });
  await usage.close(1, T0, T0);
  await removeRows(clickhouse, 1, "gone", "");
  await ask("ALTER TABLE relog_g1.logs DELETE WHERE tenant = 'gone'", { mutations_sync: 2 });
  await usage.close(1, T0, T0);
  expect(await recordsOf("gone")).toEqual([4]);
});

it("services beyond the bound are one row, and none is counted twice when others come", async () => {
  const many = (from: number, count: number, records: number) =>
    ask(
      `INSERT INTO relog_g1.logs (tenant, timestamp, observed_timestamp, batch, service, body) SELECT 'many', toDateTime64(${T0 / 1000}, 9, 'UTC'), toDateTime64(${T0 / 1000}, 9, 'UTC'), '01J', 's' || toString(${from} + number % ${count}), 'abc' FROM numbers(${count * records})`,
    );
  await many(0, 900, 1);
  await usage.close(1, T0, T0);
  // All of these have more records than those before, and only 100 find a place.
  await many(5_000, 2_000, 3);
  for (let i = 0; i < 2; i++) {
    const rows = await rowsOf("many", { services: true, by: "day", rowsMax: 10_000 });
    expect(rows.length).toBe(1_001);
    expect(rows.find(({ service }) => service === OTHER_SERVICES)?.records).toBe(1_900 * 3);
    expect(await recordsOf("many")).toEqual([900 + 6_000]);
    await usage.close(1, T0, T0);
  }
  expect(await recordsOf("many", closedOnly)).toEqual([6_900]);
});

it("says which generations have no usage; the reader sees none of it", async () => {
  expect(await usage.lacking(1)).toBeUndefined();
  expect(await usage.lacking(9)).toBe("generation 9 has no tables yet");
  await ask("CREATE DATABASE relog_g8");
  await ask("CREATE TABLE relog_g8.logs (tenant String, batch String) ENGINE = MergeTree ORDER BY batch");
  expect(await usage.lacking(8)).toContain("generation 8 was made before usage was counted: `relog rebuild`");
  for (const table of ["usage", "usage_closed"])
    await expect(reader.read({ statement: `SELECT * FROM relog.${table}` })).rejects.toMatchObject({ details: { clickhouse: 497 } });
});

it("statements for a cluster", async () => {
  const said: string[] = [];
  const noting = {
    ...clickhouse,
    read: async ({ statement }: { statement: string }) => Buffer.from(said.push(statement) === 0 ? "1" : ""),
  };
  await usageStore(noting, "c1").create();
  expect(said.map((statement) => statement.replace(/\(.*?ENGINE = (.*?) (PARTITION|ORDER).*/, "$1"))).toEqual([
    "CREATE DATABASE IF NOT EXISTS relog ON CLUSTER 'c1'",
    "CREATE TABLE IF NOT EXISTS relog.usage ON CLUSTER 'c1' ReplicatedAggregatingMergeTree('/clickhouse/tables/relog/usage', '{shard}-{replica}')",
    "CREATE TABLE IF NOT EXISTS relog.usage_closed ON CLUSTER 'c1' ReplicatedAggregatingMergeTree('/clickhouse/tables/relog/usage_closed', '{shard}-{replica}')",
  ]);
});

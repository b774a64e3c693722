// Migrations and inserts on a real engine.

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startStack } from "../devstack/stack.ts";
import { BatchBuilder, encodeBlock } from "../event/batch.ts";
import { RecordDraft } from "../event/record.ts";
import type { ClickHouse } from "./client.ts";
import { openClickHouse } from "./client.ts";
import { logsTables, removalFrom, removeTenant } from "./erase.ts";
import { engineTimeMs, inserter, killInserts, presence } from "./insert.ts";
import type { Migration } from "./migrate.ts";
import { generationDatabase, migrate, readMigrations, renderMigration } from "./migrate.ts";
import { READER_CHANGEABLE_SETTINGS } from "./select.ts";

const MIGRATIONS = readMigrations("schemas/clickhouse");
const BATCH = "01JGFJJZ008XQVG3S7J5X9TN4W";
const SECONDS = 1_735_689_600;
const RANGE = { minTimestamp: BigInt(SECONDS) * 1_000_000_000n, maxTimestamp: BigInt(SECONDS + 100) * 1_000_000_000n };
const database = generationDatabase(1);
const stack = new AsyncDisposableStack();
let clickhouse: ClickHouse;
beforeAll(async () => {
  clickhouse = stack.use(openClickHouse(stack.use(await startStack({ env: process.env })).clickhouse!));
});
afterAll(() => stack.disposeAsync());

async function frame(records: number, firstLine = 0, batch = BATCH): Promise<Buffer> {
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (let i = 0; i < records; i++) {
    draft.clear();
    draft.seconds = SECONDS + i;
    draft.body = `record ${i}`;
    builder.add(draft);
  }
  return await encodeBlock(builder.finish("acme", batch, SECONDS * 1000, firstLine));
}

const ask = async (statement: string): Promise<string> => (await clickhouse.read({ statement })).toString("utf8").trim();
const count = async (): Promise<number> => Number(await ask(`SELECT count() FROM ${database}.logs`));
const far = (): number => Date.now() + 60_000;
const request = (token: string, frames: Buffer[], records: number, fenceMs = far()) => ({
  database,
  token,
  queryId: `${token}/0`,
  frames,
  records,
  fenceMs,
});

describe("migrations", () => {
  it("are applied once, also from two processes at once", async () => {
    const both = await Promise.all([migrate(clickhouse, MIGRATIONS, 1, ""), migrate(clickhouse, MIGRATIONS, 1, "")]);
    expect(new Set(both.flatMap(({ applied }) => applied))).toEqual(new Set(MIGRATIONS.map(({ name }) => name)));
    expect(await migrate(clickhouse, MIGRATIONS, 1, "")).toEqual({ applied: [], differs: [] });
    expect(await ask(`SELECT count(DISTINCT name) FROM ${database}.migrations WHERE name != 'complete'`)).toBe(String(MIGRATIONS.length));
  });

  it("a generation keeps the schema it was made with, and what differs is named", async () => {
    const changed: Migration[] = MIGRATIONS.map((migration) => ({ ...migration, checksum: "another", sql: "DROP TABLE {database}.logs" }));
    const added = { name: "0002_more", checksum: "x", sql: "CREATE TABLE {database}.more (a UInt8) ENGINE = Memory" };
    expect(await migrate(clickhouse, [...changed, added], 1, "")).toEqual({ applied: [], differs: ["0001_logs", "0002_more"] });
    expect(await migrate(clickhouse, [...MIGRATIONS, added], 1, "")).toEqual({ applied: [], differs: ["0002_more"] });
    expect(await ask(`SELECT groupArray(name) FROM (SELECT name FROM system.tables WHERE database = '${database}' ORDER BY name)`)).toBe(
      "['logs','migrations']",
    );
  });

  it("of another generation go into another database", async () => {
    expect((await migrate(clickhouse, MIGRATIONS, 2, "")).applied).toEqual(MIGRATIONS.map(({ name }) => name));
    expect(await ask("SELECT count() FROM relog_g2.logs")).toBe("0");
  });

  it("a tenant's removal from a table or database that is gone is done", async () => {
    for (const gone of [
      { database, table: "archive_gone" },
      { database: generationDatabase(7), table: "logs" },
    ]) {
      await removeTenant(clickhouse, gone, "acme", "");
      expect(await removalFrom(clickhouse, gone, "")).toBeUndefined();
    }
    await expect(removeTenant(clickhouse, { database, table: "migrations" }, "acme", "")).rejects.toThrow();
    expect(await logsTables(clickhouse)).toContainEqual({ database, table: "logs" });
  });

  it("render for one server and for a cluster", () => {
    for (const { sql } of MIGRATIONS) {
      const [one, cluster] = [renderMigration(sql, "d", "").join("\n"), renderMigration(sql, "d", "c1").join("\n")];
      for (const text of [one, cluster]) expect(text).not.toMatch(/\{(database|cluster|on_cluster|replicated|local)\}|^--/m);
      expect(one).not.toMatch(/ON CLUSTER|Replicated|Distributed|_local/);
      for (const statement of renderMigration(sql, "d", "c1"))
        if (statement.startsWith("CREATE")) expect(statement).toContain("ON CLUSTER 'c1'");
      if (one.includes("MergeTree")) expect(cluster).toMatch(/ReplicatedMergeTree/);
    }
    expect(renderMigration(MIGRATIONS[0]!.sql, "d", "c1").join("\n")).toMatch(/Distributed\('c1', `d`, logs_local/);
  });
});

describe("inserts", () => {
  it("store a plan of several frames as one part per day, once per token", async () => {
    const frames = [await frame(10), await frame(5, 10)];
    const insert = inserter(clickhouse);
    for (const _ of [1, 2]) {
      expect((await insert(request("t1", frames, 15))).kind).toMatch(/stored|unknown/);
      expect(await count()).toBe(15);
    }
    expect(await ask(`SELECT count() FROM system.parts WHERE database = '${database}' AND table = 'logs' AND active`)).toBe("1");
    expect((await insert(request("t1/new", frames, 15))).kind).toBe("stored");
    expect(await count()).toBe(30);
  });

  it("give each tenant's rows their class, also of as many tenants as a plan may have", async () => {
    const named = Array.from({ length: 1_500 }, (_, i) => [`${"t".repeat(59)}${String(i).padStart(4, "0")}`, 10_000 + i] as const);
    const classes = { days: 30, tenants: { ...Object.fromEntries(named), acme: 7 } };
    expect((await inserter(clickhouse)({ ...request("classes", [await frame(3, 500)], 3), classes })).kind).toBe("stored");
    expect(await ask(`SELECT groupArray(retention) FROM ${database}.logs WHERE line >= 500`)).toBe("[7,7,7]");
    await ask(`ALTER TABLE ${database}.logs DELETE WHERE line >= 500 SETTINGS mutations_sync = 2`);
  });

  it("presence lists every line that is there, twice when it is there twice", async () => {
    const lines = await presence(clickhouse)({ database, tenants: ["acme"], batches: [BATCH, "none"], ...RANGE });
    expect([...lines.keys()]).toEqual([BATCH]);
    expect(lines.get(BATCH)!.sort((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_, i) => i >> 1));
    for (const none of [{ tenants: ["other"] }, { batches: [] }, { minTimestamp: RANGE.maxTimestamp }]) {
      expect((await presence(clickhouse)({ database, tenants: ["acme"], batches: [BATCH], ...RANGE, ...none })).size).toBe(0);
    }
  });

  it("that come after their fence are refused and store nothing", async () => {
    const fence = (await engineTimeMs(clickhouse)) - 1;
    expect(await inserter(clickhouse)(request("t2", [await frame(3)], 3, fence))).toMatchObject({ kind: "fenced", code: 395 });
    expect(await count()).toBe(30);
  });

  it.each<[string, () => Promise<Buffer[]>, string]>([
    ["bytes that are no frame", async () => [Buffer.from("no frame at all, no frame at all")], "data"],
    ["half a frame", async () => [(await frame(100)).subarray(0, 60)], "unknown"],
  ])("of %s are refused and store nothing", async (name, frames, kind) => {
    expect((await inserter(clickhouse)(request(`bad ${name}`.replaceAll(" ", "-"), await frames(), 100))).kind).toBe(kind);
    expect(await count()).toBe(30);
  });

  it("that store fewer rows than were meant are unknown", async () => {
    expect((await inserter(clickhouse)(request("t3", [await frame(2)], 3))).kind).toBe("unknown");
    expect(await count()).toBe(32);
  });

  it("into a table that is not there are busy, into an engine that is not there unknown", async () => {
    const frames = [await frame(1)];
    expect((await inserter(clickhouse, { table: "none" })(request("t4", frames, 1))).kind).toBe("busy");
    await using nobody = openClickHouse({ url: "http://127.0.0.1:9", user: "u", password: "" });
    expect((await inserter(nobody)(request("t5", frames, 1))).kind).toBe("unknown");
  });

  it("that run are ended by their token, and only those", async () => {
    const run = (queryId: string) =>
      clickhouse.read({ statement: "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)", queryId }).catch((error: unknown) => error);
    const abort = new AbortController();
    const running = [run("kill-me/0"), run("kill-me/1"), run("kill-me-not/0")];
    for (;;) if ((await ask("SELECT count() FROM system.processes WHERE query_id LIKE 'kill-me%'")) === "3") break;
    await killInserts(clickhouse, "kill-me");
    await Promise.all(running.slice(0, 2));
    expect(await ask("SELECT groupArray(query_id) FROM system.processes WHERE query_id LIKE 'kill-me%'")).toBe("['kill-me-not/0']");
    await killInserts(clickhouse, "kill-me-not");
    await running[2];
    abort.abort();
    await killInserts(clickhouse, "nobody");
  });
});

describe("reading back", () => {
  it("asks for more batches than fit one parameter", async () => {
    const others = Array.from({ length: 9_000 }, (_, i) => `01JGFJJZ00${String(i).padStart(16, "0")}`);
    const asked = { database, tenants: ["acme"], batches: [...others, BATCH], ...RANGE };
    const found = await presence(clickhouse)(asked);
    expect([...found.keys()]).toEqual([BATCH]);
  });

  it("asks for more tenants than fit one parameter", async () => {
    const tenants = ["acme", ...Array.from({ length: 9_000 }, (_, i) => `tenant-with-a-rather-long-name-${i}`)];
    expect([...(await presence(clickhouse)({ database, tenants, batches: [BATCH], ...RANGE })).keys()]).toEqual([BATCH]);
  });
});

it.each(READER_CHANGEABLE_SETTINGS)("the reader's profile lets the query service set %s", (name) => {
  const profile = readFileSync("ops/clickhouse/users.d/relog.xml", "utf8");
  expect(profile).toMatch(new RegExp(`<${name}>(?:<min>\\d+</min>)?(?:<max>\\d+</max>)?<changeable_in_readonly/></${name}>`));
});

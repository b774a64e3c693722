// The second wall: what the engine itself denies the reader, with no gate in front.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { waitFor } from "../base/loop.ts";
import { ARCHIVE_DATABASE } from "../store/isolation.ts";
import { migrate, readMigrations } from "../store/migrate.ts";
import type { Select } from "../store/select.ts";
import { createSelect } from "../store/select.ts";
import { countSideTable, createSideTable, dropSideTable, hideSideTable, isTrimmed, showSideTable, trimSideTable } from "../store/side.ts";
import type { TestEngine } from "./testing.ts";
import { SECRET, startTestEngine, TEST_DATABASE } from "./testing.ts";

let engine: TestEngine;
let select: Select;
beforeAll(async () => {
  engine = await startTestEngine(process.env);
  select = createSelect(engine.reader, engine.writer, () => undefined);
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
});

async function run(sql: string, tenant = "a", database = TEST_DATABASE, settings: Record<string, string | number> = {}): Promise<string> {
  const signal = new AbortController().signal;
  const request = { sql, format: "TSV", database, tenant, params: {}, settings, queryId: crypto.randomUUID(), signal };
  const answer = await select(request);
  let text = "";
  for await (const chunk of answer.body) text += Buffer.from(chunk).toString("utf8");
  return text;
}

it.each(["a", "b"])("tenant %s sees its own rows", async (tenant) => {
  expect(await run("SELECT groupUniqArray(tenant), count() FROM logs", tenant)).toBe(`['${tenant}']\t300\n`);
});

// A set index evaluates the statement's expressions over all values of a granule, before the row policy.
describe("expressions over other tenants' values", () => {
  it.each([
    ["by an error", "SELECT count() FROM logs WHERE intDiv(1, severity_text = 'own-word') = 1"],
    [
      "by the text of an error",
      "SELECT count() FROM logs WHERE accurateCast(if(severity_text = 'own-word', '1', severity_text), 'UInt8') = 1",
    ],
  ])("tell nothing %s, also in a generation that has set indexes", async (_what, sql) => {
    const add = `ALTER TABLE ${TEST_DATABASE}.logs ADD INDEX IF NOT EXISTS by_severity_text severity_text TYPE set(16) GRANULARITY 1`;
    const materialize = `ALTER TABLE ${TEST_DATABASE}.logs MATERIALIZE INDEX by_severity_text SETTINGS mutations_sync = 2`;
    for (const statement of [add, materialize]) await engine.writer.read({ statement });
    expect(await run(sql)).toBe("300\n");
    // The same without the reader's profile: this is what it holds back.
    const settings = { log_comment: "a", ignore_data_skipping_indices: "" };
    const filtered = sql.replace("FROM logs", `FROM ${TEST_DATABASE}.logs`).replace("WHERE", "WHERE tenant = 'a' AND");
    await expect(engine.writer.read({ statement: filtered, settings })).rejects.toMatchObject({ code: "query_invalid" });
  });

  it.each(["level = 'error'", "level IN ('error', 'fatal')", "severity_text = 'own-word'"])("are still pruned: %s", async (where) => {
    const settings = { log_comment: "a", default_format: "TSVRaw" };
    const statement = `EXPLAIN indexes = 1 SELECT body FROM logs WHERE ${where}`;
    const plan = (await engine.reader.read({ statement, database: TEST_DATABASE, settings })).toString();
    expect(plan).toMatch(where.startsWith("level") ? /has_level\s/ : /has_severity_text\s/);
    expect(plan).not.toContain("by_severity_text");
  });

  it("no index of the schema is a set", () => {
    for (const { sql } of readMigrations("schemas/clickhouse")) expect(sql).not.toMatch(/TYPE\s+set\b/i);
  });

  it("the reader may not change which indexes are used", async () => {
    const settings = { ignore_data_skipping_indices: "x" };
    await expect(run("SELECT 1", "a", TEST_DATABASE, settings)).rejects.toMatchObject({ code: "store_misconfigured" });
  });
});

it("a tenant that nobody is sees nothing", async () => {
  expect(await run("SELECT count() FROM logs", "' OR 1=1 --")).toBe("0\n");
});

describe("the reader may not", () => {
  it.each([
    ["read another table", "SELECT * FROM private"],
    ["read it through merge", `SELECT body FROM merge('${TEST_DATABASE}', '.*')`],
    ["read users", "SELECT * FROM system.users"],
    ["read files", "SELECT * FROM file('/etc/passwd', 'LineAsString')"],
    ["write", `INSERT INTO ${TEST_DATABASE}.logs (tenant) SELECT 'a'`],
    ["drop", `DROP TABLE ${TEST_DATABASE}.logs`],
    ["raise readonly", "SELECT 1 SETTINGS readonly = 0"],
    ["connect elsewhere", "SELECT * FROM remote('127.0.0.1:9000', system.one)"],
  ])("%s", async (_what, sql) => {
    const text = await run(sql).catch((error: unknown) => String(error));
    expect(text).not.toContain(SECRET);
    expect(text).not.toContain("root:x:");
    if (!sql.includes("merge")) expect(text).toContain("RelogError");
  });
});

it("what a tenant's condition did not match is not remembered for another tenant", async () => {
  for (const [tenant, count] of [
    ["a", "0"],
    ["b", "300"],
    ["a", "0"],
    ["nobody", "0"],
    ["b", "300"],
  ] as const) {
    expect(await run("SELECT count() FROM logs WHERE body LIKE '%zebra-of%'", tenant)).toBe(`${count}\n`);
  }
});

it("is not asked where the row policy is missing", async () => {
  await engine.writer.read({ statement: "CREATE DATABASE IF NOT EXISTS elsewhere" });
  await expect(run("SELECT 1", "a", "elsewhere")).rejects.toMatchObject({ code: "store_misconfigured" });
});

it("fails rather than runs with a setting that its profile does not allow", async () => {
  await expect(run("SELECT 1", "a", TEST_DATABASE, { readonly: 0 })).rejects.toMatchObject({ code: "store_misconfigured" });
});

describe("a table from the archive, shown in a generation", () => {
  const read = async (sql: string, tenant: string): Promise<string> => {
    const signal = new AbortController().signal;
    const queryId = crypto.randomUUID();
    const answer = await select({
      sql,
      format: "TSV",
      database: TEST_DATABASE,
      archive: true,
      tenant,
      params: {},
      settings: {},
      queryId,
      signal,
    });
    let text = "";
    for await (const chunk of answer.body) text += Buffer.from(chunk).toString("utf8");
    return text;
  };

  beforeAll(async () => {
    const { writer } = engine;
    const read = (statement: string) => writer.read({ statement });
    await migrate(writer, readMigrations("schemas/clickhouse"), 2, "");
    for (const tenant of ["a", "b"]) {
      const rows = `SELECT '${tenant}', addMilliseconds(toDateTime64('2026-01-02 03:00:00', 9, 'UTC'), number * 10), 17, 's', concat('w', toString(number % 500), ' ', if(number = 4321, 'needle', 'hay')), 'B', number FROM numbers(50000)`;
      await createSideTable(writer, "may", 2, "");
      await read(`INSERT INTO ${ARCHIVE_DATABASE}.archive_may (tenant, timestamp, severity_number, service, body, batch, line) ${rows}`);
    }
    for (const generation of [1, 2, 1, 31]) await showSideTable(writer, "may", generation, "");
  });

  it.each(["a", "b"])("has only the rows of tenant %s", async (tenant) => {
    expect(await read("SELECT groupUniqArray(tenant), count() FROM archive_may", tenant)).toBe(`['${tenant}']\t50000\n`);
    expect(await read("SELECT service, count() FROM archive_may GROUP BY service", tenant)).toBe("s\t50000\n");
    const joined = "SELECT uniq(a.tenant), count() FROM archive_may AS a JOIN logs AS l ON a.line = l.line";
    expect(await read(joined, tenant)).toBe("1\t300\n");
  });

  it("has the computed columns, and SELECT * does not show them", async () => {
    expect(await read("SELECT level, message, time FROM archive_may WHERE hasAllTokens(words, 'needle')", "a")).toMatch(
      /^error\tw321 needle\t/,
    );
    expect((await read("SELECT * FROM archive_may LIMIT 1", "a")).split("\t")).toHaveLength(17);
  });

  it("is read through its primary key, its text index and its counts", async () => {
    const explain = async (sql: string): Promise<string> =>
      (
        await engine.reader.read({
          statement: `EXPLAIN indexes = 1 ${sql}`,
          database: TEST_DATABASE,
          settings: { log_comment: "a", default_format: "TSVRaw" },
        })
      ).toString();
    const needle = await explain("SELECT message FROM archive_may WHERE hasAllTokens(words, 'needle')");
    expect(needle).toContain(`ReadFromMergeTree (${ARCHIVE_DATABASE}.archive_may)`);
    expect(needle).toMatch(/PrimaryKey[\s\S]*tenant in \['a', 'a'\]/);
    expect(needle).toMatch(/by_words[\s\S]*Granules: 1\//);
    expect(await explain("SELECT service, count() FROM archive_may GROUP BY service")).toContain("ReadFromMergeTree (counts)");
  });

  it("outlives the generations that show it, and what is shown is hidden without it", async () => {
    await engine.writer.read({ statement: "DROP DATABASE relog_g2 SYNC" });
    await hideSideTable(engine.writer, "may", 1, "");
    await expect(read("SELECT count() FROM archive_may", "a")).rejects.toMatchObject({ code: "query_invalid" });
    expect(await countSideTable(engine.writer, "may")).toBe(100_000);
    await showSideTable(engine.writer, "may", 1, "");
    expect(await read("SELECT count() FROM archive_may", "a")).toBe("50000\n");
  });

  it("keeps its range to the millisecond, and nothing twice over", async () => {
    const range = { sinceMs: Date.parse("2026-01-02T03:01:00Z"), untilMs: Date.parse("2026-01-02T03:02:00Z") };
    expect(await trimSideTable(engine.writer, "may", range, "")).toBe(100_000 - 12_000);
    await waitFor("the removal", async () => (await isTrimmed(engine.writer, "may", "")) || undefined);
    expect(await trimSideTable(engine.writer, "may", range, "")).toBe(0);
    expect(await read("SELECT service, count() FROM archive_may GROUP BY service", "b")).toBe("s\t6000\n");
    expect(await read("SELECT min(time), max(time) FROM archive_may", "b")).toBe(
      "2026-01-02 03:01:00.000000000\t2026-01-02 03:01:59.990000000\n",
    );
  });

  it("is gone when it is dropped, twice over", async () => {
    for (let i = 0; i < 2; i++) await dropSideTable(engine.writer, "may", "");
    await expect(read("SELECT count() FROM archive_may", "a")).rejects.toMatchObject({ code: "query_invalid" });
  });
});

// Attacks and honest statements against the real engine, through the whole query API. One case a line.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sideTableName } from "../../store/side.ts";
import type { TestEngine } from "../testing.ts";
import { ask, SECRET, startTestEngine, TEST_SIDE, textOf } from "../testing.ts";
import { ATTACKS } from "./attacks.ts";
import { HONEST } from "./honest.ts";
import { FUNCTIONS } from "./lists.ts";

/** The cases with a short name in front. */
const named = <T extends readonly [string, ...unknown[]]>(row: T): [string, ...T] => [JSON.stringify(row[0].slice(0, 100)), ...row];

const SIDE = new Map([[sideTableName(TEST_SIDE), "complete"]] as const);

let engine: TestEngine;
beforeAll(async () => {
  engine = await startTestEngine(process.env);
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
});

describe("attacks", () => {
  it.each(ATTACKS.map(named))("%s", async (_name, sql, expected, params) => {
    const response = await ask(engine.app({ timeMaxMs: 6_000 }, { side: SIDE }), sql, { params: params ?? {} });
    const { text, broken } = await textOf(response);
    // How much was read for an answer is partly other tenants' rows.
    expect([...response.headers.keys()].filter((name) => name.startsWith("x-clickhouse"))).toEqual([]);
    expect(JSON.stringify([...response.headers]) + text.replaceAll(sql, ""), "another tenant's word").not.toContain(SECRET);
    expect(text, "a file").not.toContain("root:x:");
    const last = text.trimEnd().split("\n").at(-1)!;
    const outcome = response.status === 200 && !broken ? "harmless" : (JSON.parse(last) as { error: { code: string } }).error.code;
    expect(outcome, outcome === expected ? "" : last.slice(0, 500)).toBe(expected);
  });
});

describe("honest statements", () => {
  it.each(HONEST.map(named))("%s", async (_name, sql, params) => {
    const response = await ask(engine.app({}, { side: SIDE }), sql, { params: params ?? {} });
    const { text, broken } = await textOf(response);
    expect({ status: response.status, broken, text: response.status === 200 ? "" : text }).toEqual({
      status: 200,
      broken: false,
      text: "",
    });
    expect(text.length, "an answer with rows").toBeGreaterThan(2);
    expect(text).not.toContain(SECRET);
  });
});

describe("the lists", () => {
  it("are long, and no statement stands twice", () => {
    expect([ATTACKS.length >= 220, HONEST.length >= 165]).toEqual([true, true]);
    for (const list of [ATTACKS, HONEST]) expect(new Set(list.map((row) => JSON.stringify([row[0], row.at(-1)]))).size).toBe(list.length);
  });

  it("name only functions that the engine has", async () => {
    const answer = await engine.writer.read({ statement: "SELECT DISTINCT lower(name) FROM system.functions FORMAT TSV" });
    const known = new Set(answer.toString("utf8").split("\n"));
    const parserOnly = new Set(["lambda", "exists"]);
    expect([...FUNCTIONS].filter((name) => !known.has(name) && !parserOnly.has(name))).toEqual([]);
  });

  it.each([
    ["a name with a line break that imitates a table", "SELECT 1 AS `x\n   TableIdentifier logs`"],
    ["the same with an escape", "SELECT 1 AS `x\\n   TableIdentifier logs`"],
    ["the same in double quotes", 'SELECT 1 AS "x\\x0a   TableIdentifier logs"'],
    ["a name as a parameter", "SELECT {x:Identifier} FROM logs"],
  ])("refuse %s", async (_what, sql) => {
    await expect(engine.gate(sql, { x: "a\n b" })).rejects.toMatchObject({ code: "query_refused" });
  });

  it("returns the statement without its semicolon", async () => {
    expect(await engine.gate("SELECT 1; -- end", {})).toBe("SELECT 1");
  });
});

describe("tables from the archive", () => {
  const side = new Map([
    ["archive_may", "complete"],
    ["archive_june", "filling"],
  ] as const);

  it.each([
    "SELECT count() FROM archive_may",
    "SELECT a.body FROM archive_may AS a JOIN logs AS l USING (batch, line)",
    "SELECT body FROM logs UNION ALL SELECT body FROM archive_may",
    "SELECT body FROM logs WHERE batch IN (SELECT batch FROM archive_may)",
  ])("may be read: %s", async (sql) => {
    expect(await engine.gate(sql, {}, side)).toBe(sql);
  });

  it.each([
    ["SELECT count() FROM archive_june", "archive_table_filling", "archive_june is being filled"],
    ["SELECT 1 FROM logs WHERE batch IN (SELECT batch FROM archive_june)", "archive_table_filling", "not complete yet"],
    ["SELECT 1 FROM archive_july", "query_refused", "there is no such table; the tables are logs, archive_may, archive_june"],
    ["SELECT 1 FROM relog_archive.archive_may", "query_refused", "names of databases are not allowed"],
    ["SELECT 1 FROM relog_g1.archive_may", "query_refused", "names of databases are not allowed"],
    ["SELECT 1 FROM merge('relog_archive', '.*')", "query_refused", "table function"],
    ["SELECT 1 FROM archive_may_local", "query_refused", "there is no such table"],
    ["SELECT 1 FROM (WITH archive_july AS (SELECT 1) SELECT * FROM archive_july), archive_july", "query_refused", "choose another one"],
    ["WITH `archive_june` AS (SELECT 1) SELECT * FROM archive_june", "query_refused", "choose another one"],
    ["SELECT batch IN archive_may FROM logs", "query_refused", "the right side of IN"],
  ])("may not: %s", async (sql, code, message) => {
    await expect(engine.gate(sql, {}, side)).rejects.toMatchObject({ code, message: expect.stringContaining(message) as string });
  });

  it("are nobody's business where there are none", async () => {
    await expect(engine.gate("SELECT 1 FROM archive_may", {})).rejects.toThrow("there is no such table; the table is logs");
  });
});

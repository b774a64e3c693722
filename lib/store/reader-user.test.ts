// What the user that runs people's statements has on the engine: these rights, these settings, and nothing else.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startStack } from "../devstack/stack.ts";
import type { ClickHouse } from "./client.ts";
import { openClickHouse } from "./client.ts";
import { GENERATIONS_MAX, generationDatabase, migrate, readMigrations } from "./migrate.ts";
import { READER_CHANGEABLE_SETTINGS } from "./select.ts";

const resources = new AsyncDisposableStack();
let writer: ClickHouse;
let reader: ClickHouse;
beforeAll(async () => {
  const address = resources.use(await startStack({ env: process.env })).clickhouse!;
  writer = resources.use(openClickHouse(address));
  reader = resources.use(openClickHouse({ ...address, user: address.readerUser, password: address.readerPassword }));
  await migrate(writer, readMigrations("schemas/clickhouse"), 1, "");
  await writer.read({ statement: "CREATE DATABASE IF NOT EXISTS relog" });
  for (const table of ["relog.usage", "relog.live_generation", "relog_g1.private"])
    await writer.read({ statement: `CREATE TABLE IF NOT EXISTS ${table} (x UInt8) ENGINE = MergeTree ORDER BY x` });
});
afterAll(() => resources.disposeAsync());

async function rows(statement: string): Promise<unknown[]> {
  const answer = await writer.read({
    statement,
    settings: { default_format: "JSONCompactEachRow", output_format_json_quote_64bit_integers: 0 },
  });
  const lines = answer.toString("utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as unknown);
}

it("is granted SELECT on logs and the archive's tables of each generation, and on the archive", async () => {
  const generations = Array.from({ length: GENERATIONS_MAX }, (_, i) => generationDatabase(i + 1));
  const granted = await rows(
    "SELECT access_type, database, table, column, is_wildcard, grant_option, is_partial_revoke FROM system.grants WHERE user_name = 'reader' ORDER BY ALL",
  );
  const wanted = generations.flatMap((database) => [
    ["SELECT", database, "archive_", null, 1, 0, 0],
    ["SELECT", database, "logs", null, 0, 0, 0],
  ]);
  const sorted = (list: unknown[]): string[] => list.map((row) => JSON.stringify(row)).sort();
  expect(sorted(granted)).toEqual(sorted([["SELECT", "relog_archive", null, null, 0, 0, 0], ...wanted]));
  expect(await rows("SELECT * FROM system.role_grants WHERE user_name = 'reader'")).toEqual([]);
});

it("is held by a row policy in each of these databases, and by no other one", async () => {
  const generations = Array.from({ length: GENERATIONS_MAX }, (_, i) => generationDatabase(i + 1));
  const policies = await rows(
    "SELECT database, table, select_filter, is_restrictive FROM system.row_policies WHERE has(apply_to_list, 'reader') OR apply_to_all ORDER BY database",
  );
  expect(policies).toEqual(
    ["relog_archive", ...generations].sort().map((database) => [database, "", "tenant = getSetting('log_comment')", 0]),
  );
});

it("has a profile that only reads, ignores indexes of type set, and lets exactly the query service's settings be sent", async () => {
  const elements = (await rows(
    "SELECT setting_name, value, min, writability FROM system.settings_profile_elements WHERE profile_name = 'reader'",
  )) as [string, string | null, string | null, string | null][];
  const changeable = elements.filter(([, , , writability]) => writability === "CHANGEABLE_IN_READONLY");
  expect(changeable.map(([name]) => name).sort()).toEqual([...READER_CHANGEABLE_SETTINGS].sort());
  // What bounds a query cannot be sent as 0, which is no bound.
  const bounds = changeable.filter(([name]) => name.startsWith("max_"));
  expect(bounds.map(([, value, min]) => min === "1" && Number(value) > 0)).toEqual(Array(6).fill(true));
  const fixed = elements.filter(([, , , writability]) => writability !== "CHANGEABLE_IN_READONLY").map(([name, value]) => [name, value]);
  expect(fixed).toEqual([
    ["readonly", "1"],
    ["output_format_json_escape_forward_slashes", "0"],
    ["ignore_data_skipping_indices", "by_level,by_severity_text"],
  ]);
});

describe("cannot see", () => {
  it.each([
    "relog.usage",
    "relog.live_generation",
    "relog_g1.migrations",
    "relog_g1.private",
    "system.users",
    "system.grants",
    "system.row_policies",
    "system.disks",
    "system.processes",
    "system.parts",
    "system.query_condition_cache",
    "information_schema.schemata",
    "INFORMATION_SCHEMA.COLUMNS",
  ])("%s", async (table) => {
    const asked = reader.read({ statement: `SELECT * FROM ${table}`, settings: { log_comment: "a" } });
    await expect(asked).rejects.toMatchObject({ code: "query_refused", details: { clickhouse: 497 } });
  });

  it.each([
    "INSERT INTO relog_g1.logs (tenant) SELECT 'a'",
    "CREATE TEMPORARY TABLE t (x UInt8)",
    "CREATE DATABASE mine",
    "ALTER TABLE relog_g1.logs DELETE WHERE 1",
    "DROP ROW POLICY x ON relog_g1.logs",
    "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1",
    "GRANT SELECT ON *.* TO reader",
    "EXECUTE AS relog SELECT 1",
    "SET readonly = 0",
    "BACKUP TABLE relog_g1.logs TO Null",
  ])("and cannot do: %s", async (statement) => {
    await expect(reader.read({ statement, settings: { log_comment: "a" } })).rejects.toBeInstanceOf(Error);
  });

  it("any tenant but the one it speaks for, nor any when it names none", async () => {
    await writer.read({ statement: "INSERT INTO relog_g1.logs (tenant, body) VALUES ('a', 'x'), ('b', 'y')" });
    const statement = "SELECT groupArray(body) FROM relog_g1.logs FORMAT TSV";
    expect((await reader.read({ statement, settings: { log_comment: "a" } })).toString()).toBe("['x']\n");
    expect((await reader.read({ statement })).toString()).toBe("[]\n");
  });
});

it("is, with the writer, the only one who gets in: the engine's own session keeps its user `default` to itself", async () => {
  // A server of one's own has no such user at all: ops/clickhouse/zz-no-default-user.xml.
  const others = (await rows("SELECT name FROM system.users WHERE name NOT IN ('relog', 'reader')")).flat();
  expect(others.filter((name) => name !== "default")).toEqual([]);
  const rights = await rows("SELECT DISTINCT access_type FROM system.grants WHERE user_name = 'default' ORDER BY access_type");
  const allowed = ["CREATE TEMPORARY TABLE", "READ", "SYSTEM LISTEN", "WRITE"];
  expect(rights.flat().filter((right) => !allowed.includes(right as string))).toEqual([]);
});

// The second wall: what the engine itself denies the reader, with no gate in front.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Select } from "../store/select.ts";
import { createSelect } from "../store/select.ts";
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

it("is not asked where the row policy is missing", async () => {
  await engine.writer.read({ statement: "CREATE DATABASE IF NOT EXISTS elsewhere" });
  await expect(run("SELECT 1", "a", "elsewhere")).rejects.toMatchObject({ code: "store_misconfigured" });
});

it("fails rather than runs with a setting that its profile does not allow", async () => {
  await expect(run("SELECT 1", "a", TEST_DATABASE, { readonly: 0 })).rejects.toMatchObject({ code: "store_misconfigured" });
});

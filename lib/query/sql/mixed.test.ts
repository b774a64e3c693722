// Statements made of honest and hostile parts, asked of two databases: one with the rows of tenants a and b, one with a's
// alone. Tenant a must get the same from both: the same bytes, or the same code of the catalogue; and never a text of b,
// which each of b's texts is marked with. RELOG_TEST_SEED repeats a run, RELOG_TEST_LONG=1 makes it ten times as long.

import fc from "fast-check";
import type { Hono } from "hono";
import { afterAll, beforeAll, expect, it } from "vitest";
import { scaled, seed } from "../../../test/fault/random.ts";
import { ERRORS } from "../../base/errors.ts";
import { ARCHIVE_DATABASE } from "../../store/isolation.ts";
import { ROWS_ALONE } from "../../store/select.ts";
import { createSideTable, sideTableName } from "../../store/side.ts";
import type { TestEngine } from "../testing.ts";
import { ask, fillGeneration, fillTable, SECRET, startTestEngine, TEST_SIDE, textOf } from "../testing.ts";

const SIDE = new Map([[sideTableName(TEST_SIDE), "complete"]] as const);

let engine: TestEngine;
let both: Hono;
let alone: Hono;
beforeAll(async () => {
  engine = await startTestEngine(process.env);
  const database = await fillGeneration(engine.writer, 2, ["a"]);
  const table = sideTableName(TEST_SIDE);
  await createSideTable(engine.writer, "alone", 1, "");
  await fillTable(engine.writer, `${ARCHIVE_DATABASE}.archive_alone`, ["a"]);
  await engine.writer.read({
    statement: `CREATE TABLE IF NOT EXISTS ${database}.${table} ENGINE = Alias('${ARCHIVE_DATABASE}', 'archive_alone')`,
  });
  both = engine.app({ timeMaxMs: 6_000 }, { side: SIDE });
  alone = engine.app({ timeMaxMs: 6_000 }, { side: SIDE, database });
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
});

/** Codes that would mean that a statement reached something it should not, or broke something. */
const NEVER: ReadonlySet<string> = new Set(["internal", "store_misconfigured", "store_unavailable", "too_many_queries"]);

interface Outcome {
  readonly code: string;
  readonly text: string;
}

async function outcomeOf(app: Hono, sql: string, params: Record<string, unknown>, accept: string): Promise<Outcome> {
  const response = await ask(app, sql, { params, accept });
  const { text, broken } = await textOf(response);
  const shown = JSON.stringify([...response.headers]) + text;
  expect(shown, `${sql}\nshows another tenant's text`).not.toContain(SECRET);
  expect([...response.headers.keys()].filter((name) => name.startsWith("x-clickhouse"))).toEqual([]);
  if (response.status === 200 && !broken) return { code: "ok", text };
  const code = broken ? "broken" : (JSON.parse(text) as { error: { code: string } }).error.code;
  expect(Object.hasOwn(ERRORS, code) && !NEVER.has(code), `${sql}\nended as ${code}: ${text}`).toBe(true);
  return { code, text: "" };
}

/** An index may leave out the row that a statement fails on, and does not where another tenant shares its granule; the row is a's. */
async function failsOnOwnRows(sql: string, params: Record<string, unknown>, database: string): Promise<void> {
  const settings = { ...ROWS_ALONE, log_comment: "a" };
  const asked = engine.reader.read({ statement: await engine.gate(sql, params, SIDE), database, params, settings });
  await expect(asked, sql).rejects.toMatchObject({ code: "query_invalid" });
}

const one = fc.constantFrom<string[]>;
const number = one(
  "line",
  "severity_number",
  "length(body)",
  "bytes",
  "retention",
  "1",
  "toUInt64(attributes['duration_ms'])",
  "toUnixTimestamp(timestamp)",
);
const text = one(
  "body",
  "message",
  "service",
  "host",
  "severity_text",
  "level",
  "tenant",
  "batch",
  "event_name",
  "words",
  "attributes['user_id']",
  "resource['service.name']",
  "trace_id",
  "attribute_types",
  "arrayStringConcat(mapKeys(attributes))",
  "JSONExtractString(attributes['payload'], 'user', 'id')",
  "'own-word'",
  "{p:String}",
);
/** What fails on values that it does not expect: an oracle, where it met another tenant's. */
const fails = (value: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.oneof(
    value.map((x) => `toUInt8(${x})`),
    value.map((x) => `toDate(${x})`),
    value.map((x) => `toUUID(${x})`),
    value.map((x) => `CAST(${x} AS Enum8('api' = 1, 'web' = 2, 'own-word' = 3, 'a' = 4, '' = 5, 'h1' = 6))`),
    value.map((x) => `CAST(${x} AS Enum8('info' = 1, 'warn' = 2, 'error' = 3, '1' = 4, '01JGK00000000000000000TEST' = 5))`),
    value.map((x) => `accurateCast(${x}, 'FixedString(8)')`),
    value.map((x) => `unhex(${x})`),
    value.map((x) => `parseDateTimeBestEffort(${x})`),
    value.map((x) => `toIPv4(${x})`),
    number.map((x) => `intDiv(1, ${x} - 1000)`),
    number.map((x) => `intDiv(1, ${x} - 31)`),
    number.map((x) => `modulo(1, ${x} - 10)`),
    number.map((x) => `toDecimal32(${x}, 7)`),
    number.map((x) => `CAST(${x} AS Enum16('x' = 9, 'y' = 13, 'z' = 17, 'u' = 30, 'v' = 1))`),
  );
/** Does not fail on any of a's values, and fails on all of b's. */
const KNOWN = ["api", "web", "own-word", "info", "warn", "error", "h1", "a", "", "1", "01JGK00000000000000000TEST"];
const ENUM = `Enum8(${KNOWN.map((value, i) => `'${value}' = ${i}`).join(", ")})`;
const sharp = one("service", "severity_text", "severity_text", "level", "host", "tenant", "event_name", "batch", "attribute_types").map(
  (column) => `CAST(${column} AS ${ENUM})`,
);
const scalar: fc.Arbitrary<string> = fc.oneof(
  { weight: 3, arbitrary: sharp },
  { weight: 3, arbitrary: text },
  { weight: 3, arbitrary: number },
  { weight: 2, arbitrary: fails(text) },
  {
    weight: 1,
    arbitrary: one(
      "toStartOfMinute(timestamp)",
      "toStartOfFiveMinutes(timestamp)",
      "toStartOfFifteenMinutes(observed_timestamp)",
      "toDate(timestamp)",
      "mapKeys(attributes)",
      "arrayMap(x -> lower(x), splitByChar(' ', body))",
      "extract(body, '\\\\d+')",
      "CAST(attributes['payload'] AS JSON).n",
      "(service, level)",
    ),
  },
);
const aggregate = fc.oneof(
  one(
    "count()",
    "uniqExact(service)",
    "min(timestamp)",
    "max(severity_text)",
    "sum(bytes)",
    "sum(line)",
    "arraySort(groupUniqArray(level))",
    "quantileExact(0.9)(line)",
    "max(tenant)",
    "countIf(tenant != 'a')",
    "uniqExact(batch)",
    "min(retention)",
    "topK(1)(tenant)",
  ),
  scalar.map((x) => `max(${x})`),
  scalar.map((x) => `uniqExact(${x})`),
  fc.tuple(number, text).map(([n, t]) => `sumIf(${n}, ${t} != '')`),
);
const condition = fc.oneof(
  one(
    "tenant = 'b'",
    "tenant != 'a' OR 1",
    "tenant IN ('a', 'b')",
    "1",
    "level = 'error'",
    "service LIKE '%zebra%'",
    "match(body, '.*tenant.*')",
    "hasAllTokens(words, 'zebra')",
    "hasAllTokens(words, 'request')",
    "severity_text >= 'own'",
    "mapContains(attributes, 'user_id')",
    "has(mapValues(attributes), '7')",
    "retention = 31",
    "line >= 1000",
    "timestamp > '2026-01-02 03:10:00'",
    "severity_number = 14",
  ),
  fc.tuple(scalar, text).map(([x, y]) => `toString(${x}) != ${y}`),
  fails(text).map((x) => `${x} = ${x}`),
  fails(text).map((x) => `isNotNull(${x})`),
  sharp.map((x) => `${x} IN ('api', 'own-word', 'a', 'h1')`),
  sharp.map((x) => `${x} = 'own-word'`),
  fc.tuple(text, one("logs", "archive_past")).map(([x, t]) => `${x} IN (SELECT service FROM ${t})`),
);
/** Each is refused, wherever it stands; those that are harmless show nothing. */
const hostile = one(
  "(SELECT any(body) FROM private)",
  "(SELECT any(body) FROM relog_g1.logs)",
  "file('/etc/passwd')",
  "getSetting('log_comment')",
  "_part",
  "_part_offset",
  "joinGet('private', 'body', 1)",
  "`private`.body",
  "(SELECT max(body) FROM logs SETTINGS log_comment = 'b')",
  "{t:Identifier}",
  "(SELECT count() FROM merge('relog_g1', '.*'))",
  "(SELECT count() FROM mergeTreeIndex('relog_g1', 'logs'))",
  "dictGet('d', 'x', 1)",
  "1 /* */ FROM private --",
  "'\\'' , (SELECT 1 FROM private)",
  "$a$ FROM private $a$",
  "throwIf(tenant = 'b')",
  "hostName()",
  "(SELECT 1) SETTINGS log_comment = 'b'",
  "body IN private",
  "arrayMap(x -> file(x), ['/etc/passwd'])",
  "\u200bbody",
  "x'62' = tenant",
  "arrayReduce('any', groupArray(body) OVER ())",
  "tokenizeQuery(body)",
  "base64Decode(event_name)",
);
const expression = fc.oneof({ weight: 9, arbitrary: scalar }, { weight: 1, arbitrary: hostile });
const rows: fc.Arbitrary<string> = fc.oneof(
  { weight: 6, arbitrary: fc.constant("logs") },
  { weight: 2, arbitrary: fc.constant("archive_past") },
  { weight: 1, arbitrary: condition.map((c) => `(SELECT * FROM logs WHERE ${c})`) },
  { weight: 1, arbitrary: fc.constant("(SELECT * FROM logs UNION ALL SELECT * FROM archive_past)") },
  {
    weight: 1,
    arbitrary: one(
      "private",
      "relog_g1.logs",
      "system.one",
      "merge('relog_g1', 'logs')",
      "`logs` FINAL",
      "numbers(3)",
      "remote('127.0.0.1', relog_g1, logs)",
      "view(SELECT * FROM logs)",
      "logs SAMPLE 1/2",
    ),
  },
);
const tail = fc.oneof(
  { weight: 12, arbitrary: one("", " LIMIT 20", " LIMIT 5 BY x", ";", " -- end") },
  {
    weight: 1,
    arbitrary: one(
      " SETTINGS log_comment = 'b'",
      " FORMAT CSV",
      " INTO OUTFILE '/tmp/relog-attack'",
      "; SELECT 1",
      " UNION ALL SELECT 1 FROM private",
      " SETTINGS max_threads = 1",
      " /* open",
    ),
  },
);

const statement = fc.oneof(
  fc.tuple(expression, rows, condition, tail).map(([x, r, c, t]) => `SELECT DISTINCT ${x} AS x FROM ${r} WHERE ${c} ORDER BY ALL${t}`),
  fc.tuple(expression, rows, condition, tail).map(([x, r, c, t]) => `SELECT ${x} AS x, line FROM ${r} PREWHERE ${c} ORDER BY ALL${t}`),
  fc
    .tuple(expression, aggregate, rows, condition, tail)
    .map(([x, a, r, c, t]) => `SELECT ${x} AS x, ${a} AS y FROM ${r} WHERE ${c} GROUP BY x ORDER BY ALL${t}`),
  fc.tuple(sharp, aggregate).map(([x, a]) => `SELECT ${x} AS x, ${a} AS y FROM logs GROUP BY x ORDER BY ALL`),
  fc.tuple(scalar, aggregate, tail).map(([x, a, t]) => `SELECT ${x} AS x, ${a} AS y FROM logs GROUP BY x ORDER BY ALL${t}`),
  fc.tuple(aggregate, rows, condition).map(([a, r, c]) => `SELECT ${a} AS x, count() FROM ${r} WHERE ${c}`),
  fc.tuple(expression, condition, aggregate).map(([x, c, a]) => `WITH w AS (SELECT ${x} AS x, * FROM logs WHERE ${c}) SELECT ${a} FROM w`),
  fc
    .tuple(scalar, condition)
    .map(
      ([x, c]) =>
        `SELECT a.line, x FROM logs AS a JOIN (SELECT ${x} AS x, line FROM archive_past WHERE ${c}) AS b USING (line) ORDER BY ALL LIMIT 20`,
    ),
  fc
    .tuple(expression, number)
    .map(([x, n]) => `SELECT line, max(${n}) OVER (PARTITION BY ${x} ORDER BY line) AS m FROM logs ORDER BY ALL LIMIT 20`),
);
const accepts = one("application/x-ndjson", "application/json", "text/csv");

it("another tenant's rows make no difference to any statement", { timeout: scaled(120_000, 1_800_000) }, async () => {
  const counts = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(statement, accepts, async (sql, accept) => {
      const params = { ...(sql.includes("{p:") ? { p: "own-word" } : {}), ...(sql.includes("{t:") ? { t: "private" } : {}) };
      const seen = await outcomeOf(both, sql, params, accept);
      const wanted = await outcomeOf(alone, sql, params, accept);
      const codes = [seen.code, wanted.code];
      if (codes.includes("ok") && codes.includes("query_invalid"))
        await failsOnOwnRows(sql, params, seen.code === "ok" ? "relog_g1" : "relog_g2");
      else expect({ sql, ...seen }).toEqual({ sql, ...wanted });
      counts.set(seen.code, (counts.get(seen.code) ?? 0) + 1);
    }),
    { seed, numRuns: scaled(300, 3_000), verbose: 1 },
  );
  // It tries both sides of the gate, or it tries nothing.
  expect(counts.get("ok") ?? 0, JSON.stringify([...counts])).toBeGreaterThan(50);
  expect((counts.get("query_refused") ?? 0) + (counts.get("query_invalid") ?? 0)).toBeGreaterThan(20);
});

// An engine with two tenants' logs in it, in tables as they really are, for the tests of this folder.

import type { Hono } from "hono";
import type { Environment } from "../base/config.ts";
import { SCOPES } from "../base/principal.ts";
import type { Telemetry } from "../base/telemetry.ts";
import { createTelemetry } from "../base/telemetry.ts";
import { startStack } from "../devstack/stack.ts";
import type { ClickHouse } from "../store/client.ts";
import { openClickHouse } from "../store/client.ts";
import { saysTableGone } from "../store/insert.ts";
import { ARCHIVE_DATABASE } from "../store/isolation.ts";
import { generationDatabase, migrate, readMigrations } from "../store/migrate.ts";
import { createSqlParser } from "../store/parse.ts";
import { createSelect } from "../store/select.ts";
import { createSideTable, showSideTable, sideTableName } from "../store/side.ts";
import { queryApi } from "./api.ts";
import type { QueryLimits, QueryTenancy } from "./limits.ts";
import { NO_TENANCY } from "./limits.ts";
import type { Gate, SideTables } from "./sql/gate.ts";
import { createGate, NO_TABLES } from "./sql/gate.ts";

export const TEST_LIMITS: QueryLimits = {
  timeMaxMs: 20_000,
  memoryMaxBytes: 400_000_000,
  resultBytesMax: 200_000_000,
  resultRowsMax: 5_000_000,
  rowsReadMax: 100_000_000_000,
  threadsMax: 2,
  queriesMax: 8,
  refusalDelayMs: 0,
  paramsBytesMax: 16_384,
};
export const TEST_SQL_BYTES_MAX = 65_536;
export const TEST_DATABASE = "relog_g1";
/** Stands in every row of tenant b, and in a table that nobody is granted. */
export const SECRET = "zebra-of-tenant-b";

export interface TestEngine extends AsyncDisposable {
  readonly writer: ClickHouse;
  readonly reader: ClickHouse;
  readonly gate: Gate;
  readonly telemetry: Telemetry;
  /** The query API; keys are "a" and "b", each of the tenant of that name. */
  app(
    limits?: Partial<QueryLimits>,
    on?: { readonly database?: string; readonly side?: SideTables; readonly tenancy?: QueryTenancy },
  ): Hono;
}

/** How the rows of tenant b differ: every text has the secret in it, and every number and time is another one. */
const OWN: Readonly<Record<string, { word: string; shift: number }>> = {
  a: { word: "own-word", shift: 0 },
  b: { word: SECRET, shift: 1_000 },
};

const ROWS = `SELECT 'TENANT' AS tenant, toDateTime64('2026-01-02 03:00:00', 9, 'UTC') + number AS timestamp, timestamp AS observed_timestamp,
  [9, 13, 17][number % 3 + 1] + OTHER AS severity_number, 'WORD' AS severity_text, concat(['api', 'web'][number % 2 + 1], 'MARK') AS service,
  'h1MARK' AS host, concat('WORD request ', toString(number), ' failed after ', toString(number * 7), ' ms') AS body,
  map('user_id', concat(toString(number % 10), 'MARK'), 'duration_ms', concat(toString(number * 7), 'MARK'),
    'payload', concat('{"n":', toString(number), ',"tags":["x","y"],"user":{"id":"u', toString(number % 3), 'MARK"}}'), 'WORD', 'WORD') AS attributes,
  '1MARK' AS attribute_types, map('service.name', service, 'WORD', 'WORD') AS resource, '2026-01-02MARK' AS resource_types,
  concat(lower(hex(MD5(toString(number)))), 'MARK') AS trace_id, 'MARK' AS span_id, 'MARK' AS event_name, '01JGK00000000000000000TESTMARK' AS batch,
  number AS line, 30 + OTHER * number % 2 AS retention FROM numbers(SHIFT, 300)`;
const COLUMNS =
  "tenant, timestamp, observed_timestamp, severity_number, severity_text, service, host, body, attributes, attribute_types, resource, " +
  "resource_types, trace_id, span_id, event_name, batch, line, retention";

/** Fills a table like logs with 300 rows of each tenant, in one part, so that tenants share granules. */
export async function fillTable(writer: ClickHouse, table: string, tenants: readonly string[]): Promise<void> {
  const rows = tenants.map((tenant) => {
    const { word, shift } = OWN[tenant]!;
    const values = { TENANT: tenant, WORD: word, MARK: shift === 0 ? "" : word, OTHER: String(shift / 1_000), SHIFT: String(shift) };
    return Object.entries(values).reduce((text, [name, value]) => text.replaceAll(name, value), ROWS);
  });
  const statement = `INSERT INTO ${table} (${COLUMNS}) SELECT ${COLUMNS} FROM (${rows.join(" UNION ALL ")})`;
  await writer.read({ statement, settings: { insert_allow_materialized_columns: 1 } });
}

/** The table of the archive that every generation of the tests shows. */
export const TEST_SIDE = "past";
/** @returns the database of the generation, made like the real ones and filled */
export async function fillGeneration(writer: ClickHouse, generation: number, tenants: readonly string[]): Promise<string> {
  const database = generationDatabase(generation);
  for (const table of ["logs", "migrations"])
    await writer.read({ statement: `DROP TABLE IF EXISTS ${database}.${table} SYNC` }).catch(unknown);
  await migrate(writer, readMigrations("schemas/clickhouse"), generation, "");
  await fillTable(writer, `${database}.logs`, tenants);
  return database;
}

/** There is no database to drop a table from. */
function unknown(error: unknown): void {
  if (!saysTableGone(error)) throw error;
}

/** Starts engines of its own and fills them. */
export async function startTestEngine(env: Environment): Promise<TestEngine> {
  await using opened = new AsyncDisposableStack();
  const address = opened.use(await startStack({ env })).clickhouse!;
  const writer = opened.use(openClickHouse(address));
  const reader = opened.use(openClickHouse({ ...address, user: address.readerUser, password: address.readerPassword }));
  await fillGeneration(writer, 1, ["a", "b"]);
  await writer.read({ statement: `CREATE TABLE ${TEST_DATABASE}.private ENGINE = MergeTree ORDER BY body AS SELECT '${SECRET}' AS body` });
  await createSideTable(writer, TEST_SIDE, 1, "");
  await fillTable(writer, `${ARCHIVE_DATABASE}.${sideTableName(TEST_SIDE)}`, ["a", "b"]);
  await showSideTable(writer, TEST_SIDE, 1, "");
  const telemetry = createTelemetry("query", "silent", false);
  const gate = createGate(createSqlParser(reader), TEST_SQL_BYTES_MAX);
  const select = createSelect(reader, writer, () => undefined);
  const authenticate = (key: string) => (key === "a" || key === "b" ? { tenant: key, keyId: key, scopes: SCOPES } : undefined);
  const rest = opened.move();
  return {
    writer,
    reader,
    gate,
    telemetry,
    app(limits = {}, { database = TEST_DATABASE, side = NO_TABLES, tenancy = NO_TENANCY } = {}) {
      const ports = { authenticate, gate, select, liveDatabase: () => database, sideTables: () => side, tenancy };
      return queryApi(ports, { ...TEST_LIMITS, ...limits }, TEST_SQL_BYTES_MAX, telemetry);
    },
    [Symbol.asyncDispose]: () => rest.disposeAsync(),
  };
}

/** Asks as tenant a. */
export async function ask(
  app: Hono,
  sql: string,
  options: { accept?: string; params?: Record<string, unknown>; key?: string } = {},
): Promise<Response> {
  const headers: Record<string, string> = { authorization: `Bearer ${options.key ?? "a"}`, "content-type": "application/json" };
  if (options.accept !== undefined) headers.accept = options.accept;
  return await app.request("/v1/query", { method: "POST", headers, body: JSON.stringify({ sql, params: options.params ?? {} }) });
}

/** The text of an answer, also of one that breaks off. */
export async function textOf(response: Response): Promise<{ text: string; broken: boolean }> {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true });
    return { text, broken: false };
  } catch {
    return { text, broken: true };
  }
}

// An engine with two tenants' logs in it, for the tests of this folder.

import type { Hono } from "hono";
import type { Environment } from "../base/config.ts";
import { SCOPES } from "../base/principal.ts";
import type { Telemetry } from "../base/telemetry.ts";
import { createTelemetry } from "../base/telemetry.ts";
import { startStack } from "../devstack/stack.ts";
import type { ClickHouse } from "../store/client.ts";
import { openClickHouse } from "../store/client.ts";
import { migrate, readMigrations } from "../store/migrate.ts";
import { createSqlParser } from "../store/parse.ts";
import { createSelect } from "../store/select.ts";
import { queryApi } from "./api.ts";
import type { QueryLimits } from "./limits.ts";
import type { Gate } from "./sql/gate.ts";
import { createGate } from "./sql/gate.ts";

export const TEST_LIMITS: QueryLimits = {
  timeMaxMs: 20_000,
  memoryMaxBytes: 400_000_000,
  resultBytesMax: 200_000_000,
  resultRowsMax: 5_000_000,
  rowsReadMax: 100_000_000_000,
  threadsMax: 2,
  queriesMax: 8,
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
  app(limits?: Partial<QueryLimits>): Hono;
}

const COLUMNS = `tenant, timestamp, observed_timestamp, severity_number, severity_text, service, host, body, attributes, resource, trace_id, span_id,
  event_name, batch, line`;

const ROWS = `SELECT 'TENANT' AS tenant, toDateTime64('2026-01-02 03:00:00', 9, 'UTC') + number AS timestamp, timestamp AS observed_timestamp,
  [9, 13, 17][number % 3 + 1] AS severity_number, 'TEXT' AS severity_text, ['api', 'web'][number % 2 + 1] AS service, 'h1' AS host,
  concat('WORD request ', toString(number), ' failed after ', toString(number * 7), ' ms') AS body,
  map('user_id', toString(number % 10), 'duration_ms', toString(number * 7)) AS attributes, map('service.name', service) AS resource,
  lower(hex(MD5(toString(number)))) AS trace_id, '' AS span_id, '' AS event_name, '01JGK00000000000000000TEST' AS batch, number AS line FROM numbers(300)`;

/** Starts engines of its own and fills them. */
export async function startTestEngine(env: Environment): Promise<TestEngine> {
  await using opened = new AsyncDisposableStack();
  const address = opened.use(await startStack({ env })).clickhouse!;
  const writer = opened.use(openClickHouse(address));
  const reader = opened.use(openClickHouse({ ...address, user: address.readerUser, password: address.readerPassword }));
  await migrate(writer, readMigrations("schemas/clickhouse"), 1, "");
  for (const statement of [
    `CREATE TABLE ${TEST_DATABASE}.private ENGINE = MergeTree ORDER BY body AS SELECT '${SECRET}' AS body`,
    ...["a", "b"].map((tenant) => {
      const word = tenant === "a" ? "own-word" : SECRET;
      return `INSERT INTO ${TEST_DATABASE}.logs (${COLUMNS}) ${ROWS.replace("TENANT", tenant).replaceAll("WORD", word).replace("TEXT", word)}`;
    }),
    // One part, so that the tenants' rows share granules and whatever the engine keeps about them.
    `OPTIMIZE TABLE ${TEST_DATABASE}.logs FINAL`,
  ]) {
    await writer.read({ statement });
  }
  const telemetry = createTelemetry("query", "silent", false);
  const gate = createGate(createSqlParser(reader), TEST_SQL_BYTES_MAX);
  const select = createSelect(reader, writer, () => undefined);
  const authenticate = (key: string) => (key === "a" || key === "b" ? { tenant: key, keyId: key, scopes: SCOPES } : undefined);
  const ports = { authenticate, gate, select, liveDatabase: () => TEST_DATABASE };
  const rest = opened.move();
  return {
    writer,
    reader,
    gate,
    telemetry,
    app: (limits = {}) => queryApi(ports, { ...TEST_LIMITS, ...limits }, TEST_SQL_BYTES_MAX, telemetry),
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

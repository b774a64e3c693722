// The bounds of a query, and how they reach the engine.
//
// Promises: every query has a bound on time, memory, rows read, rows and bytes answered; the engine enforces them. A tenant's own
// limits make them smaller, never larger, and an error names the limit that it was.

import { bytes, duration, integer } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import type { Principal } from "../base/principal.ts";

export const querySettings = {
  timeMaxMs: duration("RELOG_QUERY_TIME_MAX", "60s", "a query that takes longer is stopped; nobody looks at a page for longer"),
  memoryMaxBytes: bytes(
    "RELOG_QUERY_MEMORY_MAX",
    "1GiB",
    "memory of one query; must leave room below ClickHouse's max_server_memory_usage",
  ),
  resultBytesMax: bytes(
    "RELOG_QUERY_RESULT_BYTES_MAX",
    "1GiB",
    "size of one answer, in the engine and on the wire; larger ones are exports",
  ),
  resultRowsMax: integer("RELOG_QUERY_RESULT_ROWS_MAX", "10000000", [1, 1e12], "rows", "rows of one answer"),
  rowsReadMax: integer(
    "RELOG_QUERY_ROWS_READ_MAX",
    "10000000000",
    [1, 1e15],
    "rows",
    "rows one query may read, also made-up ones of numbers()",
  ),
  threadsMax: integer(
    "RELOG_QUERY_THREADS_MAX",
    "4",
    [1, 256],
    "threads",
    "of the engine per query, so that one query cannot take the machine",
  ),
  queriesMax: integer("RELOG_QUERIES_MAX", "32", [1, 10_000], "queries", "running at once in this process; over it is 429"),
  refusalDelayMs: duration(
    "RELOG_QUERY_REFUSAL_DELAY",
    "100ms",
    "how long an answer of too_many_queries is held back, so that one who asks again at once costs others little; 0 is not at all",
  ),
  sqlBytesMax: bytes(
    "RELOG_SQL_BYTES_MAX",
    "64KiB",
    "length of a statement; at most 96 KiB, since ClickHouse gets it hex-encoded within 256 KiB",
  ),
  paramsBytesMax: bytes("RELOG_SQL_PARAMS_BYTES_MAX", "16KiB", "all parameters of a query together; they travel in a URL"),
};

export interface QueryLimits {
  readonly timeMaxMs: number;
  readonly memoryMaxBytes: number;
  readonly resultBytesMax: number;
  readonly resultRowsMax: number;
  readonly rowsReadMax: number;
  readonly threadsMax: number;
  readonly queriesMax: number;
  readonly refusalDelayMs: number;
  readonly paramsBytesMax: number;
  /** How many of the queries one tenant may run, percent; all of them when it is absent. */
  readonly tenantSharePercent?: number;
}

/** A tenant's own limits of a query. */
export interface TenantQueryLimits {
  readonly query_seconds?: number | null | undefined;
  readonly query_rows?: number | null | undefined;
  readonly query_memory_bytes?: number | null | undefined;
}

/** What a caller may, beside what the installation allows everyone. */
export interface QueryTenancy {
  limitsOf(principal: Principal): TenantQueryLimits;
  /** A place among the queries that its tenant and its key may run at once. @throws RelogError too_many_queries */
  slot(principal: Principal): Disposable;
  /** Whether its tenant or its key goes on trying although it is refused: its query does not take the cores that others' need. */
  presses(principal: Principal): boolean;
  /** Whether there is one tenant only: then it has all the room. */
  alone(): boolean;
  /** Fields of an answer that say what is left; none without limits. */
  fields(principal: Principal): readonly (readonly [name: string, value: string])[];
}

/** For processes and tests without accounts. */
export const NO_TENANCY: QueryTenancy = {
  limitsOf: () => ({}),
  slot: () => ({ [Symbol.dispose]: () => undefined }),
  presses: () => false,
  alone: () => false,
  fields: () => [],
};

/** A statement must fit into the engine's max_query_size after being written in hex. */
export function sqlFitsEngine(values: { sqlBytesMax: number }): string | undefined {
  return values.sqlBytesMax > 96 * 2 ** 10 ? "RELOG_SQL_BYTES_MAX is larger than 96KiB" : undefined;
}

/** The engine's settings for a query within these limits. */
export function engineSettings(limits: QueryLimits): Record<string, number | string> {
  return {
    max_execution_time: Math.max(1, Math.ceil(limits.timeMaxMs / 1_000)),
    max_memory_usage: limits.memoryMaxBytes,
    max_result_bytes: limits.resultBytesMax,
    max_result_rows: limits.resultRowsMax,
    max_rows_to_read: limits.rowsReadMax,
    max_threads: limits.threadsMax,
    // Times as 2026-01-02T03:04:05.678901234Z in JSON and CSV.
    date_time_output_format: "iso",
    // The statistics of FORMAT JSON count rows of whole granules, other tenants' among them.
    output_format_write_statistics: 0,
  };
}

/** With one thread a query takes longer and leaves the other cores alone; others' 99th percentiles say so (docs/adr/0017). */
const PRESSED_THREADS = 1;

/** The limits of a tenant's query. @param pressed whether its tenant goes on trying although it is refused */
export function narrowed(limits: QueryLimits, own: TenantQueryLimits, pressed = false): QueryLimits {
  return {
    ...limits,
    threadsMax: pressed ? PRESSED_THREADS : limits.threadsMax,
    timeMaxMs: Math.min(limits.timeMaxMs, (own.query_seconds ?? Number.POSITIVE_INFINITY) * 1_000),
    rowsReadMax: Math.min(limits.rowsReadMax, own.query_rows ?? Number.POSITIVE_INFINITY),
    memoryMaxBytes: Math.min(limits.memoryMaxBytes, own.query_memory_bytes ?? Number.POSITIVE_INFINITY),
  };
}

/** The engine's codes of the limits that a tenant may have, as lib/store/failure.ts passes them on. */
const TENANT_LIMIT_CODES: Readonly<Record<number, keyof TenantQueryLimits>> = {
  158: "query_rows",
  159: "query_seconds",
  160: "query_seconds",
  241: "query_memory_bytes",
};

/** A query's error that names the tenant's limit where that one, and not the installation's, was passed. */
export function namingTenant(error: RelogError, limits: QueryLimits, own: TenantQueryLimits, tenant: string): RelogError {
  const code = error.code === "query_too_expensive" ? error.details?.clickhouse : undefined;
  const name = typeof code === "number" ? TENANT_LIMIT_CODES[code] : undefined;
  const value = name === undefined ? undefined : own[name];
  if (name === undefined || typeof value !== "number") return error;
  const installation = {
    query_seconds: limits.timeMaxMs / 1_000,
    query_rows: limits.rowsReadMax,
    query_memory_bytes: limits.memoryMaxBytes,
  };
  if (value >= installation[name]) return error;
  const text = `the query passed tenant "${tenant}"'s limit ${name}, ${value}`;
  return new RelogError(error.code, text, { cause: error.cause, details: { ...error.details, limit: name, value } });
}

// Inserting a plan into a projection's table, and asking what of it is there.
//
// Promises: a plan is one request and, inside one partition, one part; the engine refuses a request that comes after its
// fence, so that a writer that slept past its lease does nothing; failures are classed by the engine's code, and whatever
// the class, only reading back says what was stored.

import { Readable } from "node:stream";
import { RelogError } from "../base/errors.ts";
import { COLUMNS_V1, STRUCTURE_V1 } from "../event/batch.ts";
import type { Classes } from "../event/retention.ts";
import { FOR_EVER } from "../event/retention.ts";
import type { ClickHouse, SettingValue } from "./client.ts";

/** Codes of exceptions that the data itself caused. Source: ClickHouse, src/Common/ErrorCodes.cpp, as are the next. */
const DATA_CODES: ReadonlySet<number> = new Set([
  1, 4, 6, 8, 9, 10, 16, 20, 26, 27, 32, 33, 36, 38, 41, 42, 43, 44, 47, 48, 50, 53, 62, 69, 70, 72, 107, 117, 128, 130, 131, 190, 246, 271,
  321, 407, 432, 441, 469, 561, 586, 601, 627, 636, 649,
]);
/** Codes that speak of the engine, its tables, users, disks, memory or load: only time or a person helps. All others are unexplained. */
const BUSY_CODES: ReadonlySet<number> = new Set([
  60, 74, 75, 76, 81, 159, 160, 164, 173, 192, 193, 194, 201, 202, 203, 209, 210, 216, 218, 225, 236, 241, 242, 243, 252, 279, 285, 286,
  290, 298, 319, 394, 425, 439, 473, 497, 516, 668, 735, 999,
]);
const THROW_IF = 395;

/**
 * Why an insert failed. `data`: the engine refuses these bytes; `fenced`: it came too late; `busy`: the engine cannot now;
 * `unknown`: nobody knows, the connection broke. None of them says what was stored.
 */
export type InsertFailure = "data" | "fenced" | "busy" | "unknown";

export type InsertOutcome =
  | { readonly kind: "stored" }
  | { readonly kind: InsertFailure; readonly code: number | undefined; readonly message: string };

export interface InsertRequest {
  /** Database of the generation. */
  readonly database: string;
  readonly token: string;
  /** token/attempt: running attempts are found and killed by its prefix. */
  readonly queryId: string;
  /** zstd frames of Native blocks of schema version 1; they are passed on as they are. */
  readonly frames: readonly Uint8Array[];
  readonly records: number;
  /** Engine time, milliseconds since the epoch, after which it must refuse. */
  readonly fenceMs: number;
  /** The class that each tenant's records get: a repetition under the same token must say the same. For ever when absent. */
  readonly classes?: Classes;
  readonly signal?: AbortSignal;
}

const COLUMNS = COLUMNS_V1.map(([name]) => name).join(", ");

/** Settings that make a plan's blocks come out the same each time, on which de-duplication by token depends. */
const INSERT_SETTINGS: Readonly<Record<string, SettingValue>> = {
  async_insert: 0,
  wait_end_of_query: 1,
  max_insert_block_size: 4_000_000,
  min_insert_block_size_rows: 4_000_000,
  min_insert_block_size_bytes: 2 ** 31,
  max_block_size: 4_000_000,
  max_threads: 1,
  max_insert_threads: 1,
  max_partitions_per_insert_block: 0,
  input_format_parallel_parsing: 0,
  deduplicate_blocks_in_dependent_materialized_views: 1,
  insert_deduplicate: 1,
  http_receive_timeout: 30,
  insert_allow_materialized_columns: 1,
  // On a cluster: the rows are on a quorum of replicas before the answer, not in a queue. Nothing on one server.
  distributed_foreground_insert: 1,
  insert_quorum: "auto",
};

export type InsertLogs = (request: InsertRequest) => Promise<InsertOutcome>;

export interface InserterOptions {
  readonly table?: string;
  /** Gives way to everything else that runs on the engine's machine. */
  readonly background?: boolean;
}

/** Nice value of the engine's threads for a background insert. */
const BACKGROUND = { os_thread_priority: 1 } as const;

/** Inserts into one generation's table, whose columns are looked at once: a table of an older schema lacks some that are computed. */
export function inserter(clickhouse: ClickHouse, options: InserterOptions = {}): InsertLogs {
  const { table = "logs", background = false } = options;
  const classed = new Map<string, boolean>();

  /** Whether its rows have a class. */
  async function hasClasses(database: string): Promise<boolean> {
    const known = classed.get(database);
    if (known !== undefined) return known;
    const statement =
      "SELECT count() FROM system.columns WHERE database = {database:String} AND table = {table:String} AND name = 'retention'";
    const answer = await clickhouse.read({ statement: `${statement} FORMAT TSV`, params: { database, table } });
    const found = Number(answer.toString("utf8")) > 0;
    classed.set(database, found);
    return found;
  }

  return async (request) => {
    try {
      const days = (await hasClasses(request.database)) ? daysExpression(request.classes ?? FOR_EVER) : undefined;
      const [names, values] = days === undefined ? [COLUMNS, COLUMNS] : [`${COLUMNS}, retention`, `${COLUMNS}, ${days} AS retention`];
      const statement =
        `INSERT INTO \`${request.database}\`.${table} (${names}) SELECT ${values} FROM input('${STRUCTURE_V1}') ` +
        `WHERE NOT throwIf(now64(3) > fromUnixTimestamp64Milli(${Math.floor(request.fenceMs)}), 'relog: this insert came after its fence') FORMAT Native`;
      const answer = await clickhouse.request({
        statement,
        queryId: request.queryId,
        settings: { ...INSERT_SETTINGS, ...(background ? BACKGROUND : {}), insert_deduplication_token: request.token },
        headers: { "Content-Encoding": "zstd" },
        body: Readable.from(request.frames, { objectMode: false }),
        ...(request.signal === undefined ? {} : { signal: request.signal }),
      });
      answer.stream.resume();
      const written = Number(answer.summary?.written_rows ?? Number.NaN);
      // Parts of a projection are counted too by some versions, so fewer is what counts as wrong.
      if (!(written >= request.records)) {
        return { kind: "unknown", code: undefined, message: `the engine says it wrote ${written} rows of ${request.records}` };
      }
      return { kind: "stored" };
    } catch (error) {
      const failure = failureOfInsert(error);
      // A table that is made again may have other columns.
      if (isTableGone(failure)) classed.delete(request.database);
      return failure;
    }
  };
}

/** UNKNOWN_TABLE and UNKNOWN_DATABASE. Source: ClickHouse, src/Common/ErrorCodes.cpp. */
const GONE_CODES: ReadonlySet<number | undefined> = new Set([60, 81]);

/** Whether an insert failed because its table is not there: an engine that lost its data, or a generation that was dropped. */
export function isTableGone(outcome: InsertOutcome): boolean {
  return outcome.kind !== "stored" && GONE_CODES.has(outcome.code);
}

/** The same of an error that was thrown. */
export function saysTableGone(error: unknown): boolean {
  return error instanceof RelogError && GONE_CODES.has(error.details?.clickhouse as number | undefined);
}

/** The class of a row's tenant, as SQL. Tenants are single words (isTenant), so quoting them is safe. */
function daysExpression({ days, tenants }: Classes): string {
  const listed = Object.entries(tenants);
  if (listed.length === 0) return `toUInt16(${days})`;
  const names = listed.map(([tenant]) => `'${tenant}'`).join(",");
  return `toUInt16(transform(tenant, [${names}], [${listed.map(([, own]) => own).join(",")}], ${days}))`;
}

function failureOfInsert(error: unknown): InsertOutcome {
  if (!(error instanceof RelogError)) return { kind: "unknown", code: undefined, message: (error as Error).message };
  const code = error.details?.clickhouse as number | undefined;
  const message = error.cause instanceof Error ? error.cause.message : error.message;
  if (code === undefined) return { kind: "unknown", code, message };
  const kind = code === THROW_IF ? "fenced" : DATA_CODES.has(code) ? "data" : BUSY_CODES.has(code) ? "busy" : "unknown";
  return { kind, code, message };
}

/** Lines of batches that a table holds. */
export interface PresenceRequest {
  readonly database: string;
  readonly tenants: readonly string[];
  readonly batches: readonly string[];
  /** Nanoseconds since the epoch, inclusive. */
  readonly minTimestamp: bigint;
  readonly maxTimestamp: bigint;
}

export type Presence = (request: PresenceRequest) => Promise<Map<string, number[]>>;

/** Answers which lines of which batches are stored; a line that is there twice is listed twice. */
export function presence(clickhouse: ClickHouse, table = "logs"): Presence {
  return async (request) => {
    const found = new Map<string, number[]>();
    for (let at = 0; at < request.batches.length; at += BATCHES_PER_ASK) {
      const rows = await ask(request, request.batches.slice(at, at + BATCHES_PER_ASK));
      for (const { batch, lines } of rows) found.set(batch, lines);
    }
    return found;
  };

  async function ask({ database, tenants, minTimestamp, maxTimestamp }: PresenceRequest, batches: readonly string[]) {
    // Few tenants narrow the search; for many of them the list would be as long as what it saves.
    const ofTenants = tenants.length <= TENANTS_ASKED_MAX ? "tenant IN {tenants:Array(String)} AND " : "";
    const statement =
      `SELECT batch, groupArray(line) AS lines FROM \`${database}\`.${table} WHERE ${ofTenants}batch IN {batches:Array(String)} ` +
      "AND timestamp BETWEEN fromUnixTimestamp64Nano({min:Int64}) AND fromUnixTimestamp64Nano({max:Int64}) GROUP BY batch FORMAT JSONEachRow";
    const asked = ofTenants === "" ? {} : { tenants };
    const params = { ...asked, batches, min: String(minTimestamp), max: String(maxTimestamp) };
    const bytes = await clickhouse.read({ statement, params, settings: { max_threads: 2, ...CONSISTENT_READ } }, PRESENCE_BYTES_MAX);
    const rows = bytes.toString("utf8").split("\n");
    return rows.filter((row) => row !== "").map((row) => JSON.parse(row) as { batch: string; lines: number[] });
  }
}

/** A parameter is a field of the URL, which the engine bounds (http_max_field_value_size, 128 KiB). */
const BATCHES_PER_ASK = 2_000;
const TENANTS_ASKED_MAX = 100;
/** On a cluster a replica that lags must not say "missing". Nothing on one server. */
const CONSISTENT_READ = { select_sequential_consistency: 1 };
const PRESENCE_BYTES_MAX = 256 * 2 ** 20;

/** Ends every running attempt of a token and waits until it is gone. @throws RelogError when the engine cannot be asked */
export async function killInserts(clickhouse: ClickHouse, token: string, cluster = ""): Promise<void> {
  const where = cluster === "" ? "" : `ON CLUSTER '${cluster}' `;
  await clickhouse.read({
    statement: `KILL QUERY ${where}WHERE startsWith(query_id, {prefix:String}) SYNC`,
    params: { prefix: `${token}/` },
  });
}

/** The engine's clock, milliseconds since the epoch. */
export async function engineTimeMs(clickhouse: ClickHouse): Promise<number> {
  const answer = await clickhouse.read({ statement: "SELECT toUnixTimestamp64Milli(now64(3)) FORMAT TSV" });
  return Number(answer.toString("utf8").trim());
}

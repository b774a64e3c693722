// Reading from ClickHouse on somebody's behalf: the engine's answer, byte for byte, never parsed.
//
// Promises: the first HOLD_BYTES of an answer are held back, so that most errors are found before anything is said; an
// exception later in the stream is cut out and thrown, and never looks like the end of an answer; when the reader of
// the answer leaves, the connection is closed and the query is killed on the server; no database is read whose row policy
// is not in place; no error comes from another tenant's rows, nor says anything of them.
//
// The last one needs care. The engine computes a statement's expressions on indexes, partitions and projections before the row
// policy has its say: there CAST(service AS Enum8('x' = 1)) fails with another tenant's service in its text (docs/adr/0008). So a
// statement that failed runs once more on nothing but rows, where the policy comes first, and that outcome counts.
//
// ClickHouse 26.7 says 200 first and, on an error in the middle, writes "\r\n__exception__\r\n<tag>\r\n<text>..." with the
// random tag of the header X-ClickHouse-Exception-Tag, then breaks the chunked encoding. The tag cannot be guessed by
// whoever wrote the rows, so looking for it is safe.

import type { Readable } from "node:stream";
import { RelogError } from "../base/errors.ts";
import type { ClickHouse, SettingValue, StoreAnswer } from "./client.ts";
import { failureOf } from "./failure.ts";
import { ARCHIVE_DATABASE, createRowPolicyCheck } from "./isolation.ts";

/** Bytes held back before the first byte is given out. */
const HOLD_BYTES = 64 * 2 ** 10;
const EXCEPTION_BYTES_MAX = 32 * 2 ** 10;

export interface SelectRequest {
  /** One SELECT that the gate has let through. */
  readonly sql: string;
  /** A format of the engine, such as JSONEachRow. */
  readonly format: string;
  readonly database: string;
  /** Whether the statement may read tables from the archive, which the database only shows. */
  readonly archive?: boolean;
  /** Whose rows: the row policy compares it. */
  readonly tenant: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly settings: Readonly<Record<string, SettingValue>>;
  readonly queryId: string;
  readonly signal: AbortSignal;
}

export interface SelectAnswer {
  readonly queryId: string;
  /** The answer. Leaving the loop early cancels the query. Throws a RelogError when the answer is not whole. */
  readonly body: AsyncGenerator<Uint8Array, void, undefined>;
}

/** Runs one query; resolves when the first bytes are there. @throws RelogError */
export type Select = (request: SelectRequest) => Promise<SelectAnswer>;

/**
 * The settings that a query sends along. The reader's profile has readonly=1, so each of them needs
 * `changeable_in_readonly` there; one that is missing makes every query fail as store_misconfigured, never run unbounded.
 */
export const READER_CHANGEABLE_SETTINGS = [
  "log_comment",
  "max_execution_time",
  "max_memory_usage",
  "max_result_rows",
  "max_result_bytes",
  "max_rows_to_read",
  "max_threads",
  "date_time_output_format",
  "output_format_write_statistics",
  "cancel_http_readonly_queries_on_client_close",
  "optimize_use_projections",
  "optimize_use_implicit_projections",
  "use_skip_indexes",
  "use_partition_pruning",
  "use_statistics",
  "use_query_condition_cache",
] as const;

/** Rows alone, found by the primary key: nothing is computed from what stands for rows of several tenants. */
export const ROWS_ALONE: Readonly<Record<string, SettingValue>> = {
  optimize_use_projections: 0,
  optimize_use_implicit_projections: 0,
  use_skip_indexes: 0,
  use_partition_pruning: 0,
  use_statistics: 0,
  use_query_condition_cache: 0,
};

/**
 * @param reader connected as the restricted user
 * @param writer connected as the user that may kill queries and see row policies
 * @param onKillFailed told when a cancelled query could not be killed
 */
export function createSelect(reader: ClickHouse, writer: ClickHouse, onKillFailed: (queryId: string, error: unknown) => void): Select {
  const requireRowPolicy = createRowPolicyCheck(writer, reader.user);
  return async function select(request) {
    await requireRowPolicy(request.database);
    if (request.archive) await requireRowPolicy(ARCHIVE_DATABASE);
    try {
      return await run(request, request.queryId, {});
    } catch (error) {
      if (!(error instanceof RelogError) || error.code !== "query_invalid") throw error;
      return await run(request, `${request.queryId}-rows`, ROWS_ALONE);
    }
  };

  async function run(request: SelectRequest, queryId: string, more: Readonly<Record<string, SettingValue>>): Promise<SelectAnswer> {
    const { signal } = request;
    const kill = (): void => {
      // Closing the connection makes the engine cancel; this also reaches a query that a proxy keeps alive.
      writer
        .read({ statement: "KILL QUERY WHERE query_id = {id:String} ASYNC", params: { id: queryId } })
        .catch((error: unknown) => onKillFailed(queryId, error));
    };
    let answer: StoreAnswer;
    try {
      signal.throwIfAborted();
      answer = await reader.request({
        statement: request.sql,
        database: request.database,
        params: request.params,
        // The tenant comes last: nothing can stand in its place.
        settings: {
          ...request.settings,
          ...more,
          default_format: request.format,
          cancel_http_readonly_queries_on_client_close: 1,
          log_comment: request.tenant,
        },
        queryId,
        signal,
      });
    } catch (error) {
      if (signal.aborted) kill();
      throw error;
    }
    const body = bytesOf(answer.stream, answer.exceptionTag, signal, kill);
    return { queryId, body: await holdBack(body, HOLD_BYTES) };
  }
}

/** The stream's bytes without an exception block; an exception or a broken connection is thrown. */
async function* bytesOf(
  stream: Readable,
  tag: string | undefined,
  signal: AbortSignal,
  kill: () => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const marker = Buffer.from(`\r\n__exception__\r\n${tag ?? ""}\r\n`);
  const onAbort = (): void => void stream.destroy(new Error("cancelled"));
  signal.addEventListener("abort", onAbort, { once: true });
  let held: Buffer = Buffer.alloc(0);
  let exception: Buffer | undefined;
  let whole = false;
  try {
    if (signal.aborted) onAbort();
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        if (exception !== undefined) {
          if (exception.length < EXCEPTION_BYTES_MAX) exception = Buffer.concat([exception, chunk]);
          continue;
        }
        const bytes = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
        const at = tag === undefined ? -1 : bytes.indexOf(marker);
        if (at >= 0) {
          exception = bytes.subarray(at + marker.length);
          held = Buffer.alloc(0);
          if (at > 0) yield bytes.subarray(0, at);
          continue;
        }
        const keep = Math.min(bytes.length, marker.length - 1);
        held = bytes.subarray(bytes.length - keep);
        if (bytes.length > keep) yield bytes.subarray(0, bytes.length - keep);
      }
    } catch (cause) {
      // After an exception the engine breaks the connection on purpose.
      if (exception === undefined)
        throw new RelogError("store_unavailable", "the connection to ClickHouse broke", { cause, retryAfterS: 2 });
    }
    whole = true;
    if (exception !== undefined) throw exceptionOf(exception);
    if (held.length > 0) yield held;
  } finally {
    signal.removeEventListener("abort", onAbort);
    stream.destroy();
    if (!whole) kill();
  }
}

function exceptionOf(block: Buffer): RelogError {
  // "Code: 395. DB::Exception: ...\n<length> <tag>\r\n__exception__\r\n": headers are gone by now, so the code stands in
  // front of the text.
  const text = block.toString("utf8");
  const message = text.replace(/\r?\n\d+ [a-z]+\r\n__exception__\r\n$/, "");
  const code = /^Code: (\d+)\. /.exec(message)?.[1];
  return failureOf(code === undefined ? undefined : Number(code), message);
}

/** Reads ahead until `bytes` are there or the answer is over, so that an early error is thrown here. */
async function holdBack(
  body: AsyncGenerator<Uint8Array, void, undefined>,
  bytes: number,
): Promise<AsyncGenerator<Uint8Array, void, undefined>> {
  const first: Uint8Array[] = [];
  let held = 0;
  while (held < bytes) {
    const next = await body.next();
    if (next.done) break;
    first.push(next.value);
    held += next.value.length;
  }
  return resume(first, body);
}

async function* resume(
  first: Uint8Array[],
  body: AsyncGenerator<Uint8Array, void, undefined>,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* first;
    yield* body;
  } catch (error) {
    throw error instanceof RelogError && error.code === "query_invalid" ? late(error) : error;
  } finally {
    await body.return();
  }
}

/** An error in the middle of an answer cannot be tried again on rows alone, so its words are not shown. */
function late(error: RelogError): RelogError {
  const message = "the statement failed in the middle of its answer; with a LIMIT or a narrower time range the message says why";
  const code = error.details?.clickhouse;
  return new RelogError(error.code, message, { cause: error.cause, ...(code === undefined ? {} : { details: { clickhouse: code } }) });
}

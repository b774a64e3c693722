// What an exception of ClickHouse means to whoever asked.
//
// Promises: decided by the engine's numeric code alone; its text is only shown, shortened, and only where it speaks about
// the asker's own statement. A code that is not listed is the statement's fault when the engine blames nobody else.

import { RelogError } from "../base/errors.ts";

/** Codes of limits, with the limit's name and the setting that moves it. */
const LIMITS: Readonly<Record<number, string>> = {
  158: "rows read (RELOG_QUERY_ROWS_READ_MAX)",
  159: "time (RELOG_QUERY_TIME_MAX)",
  160: "time (RELOG_QUERY_TIME_MAX)",
  161: "columns",
  167: "depth of the statement",
  168: "size of the statement",
  191: "size of a set",
  241: "memory (RELOG_QUERY_MEMORY_MAX)",
  306: "depth of the statement",
  307: "bytes read",
  396: "size of the answer (RELOG_QUERY_RESULT_ROWS_MAX, RELOG_QUERY_RESULT_BYTES_MAX)",
};

/** Codes that say that the server cannot now: too many queries, network, no space, read-only, cancelled, still starting. */
const UNAVAILABLE: ReadonlySet<number> = new Set([202, 203, 209, 210, 225, 242, 243, 252, 279, 319, 394, 439, 473, 999]);

/** Codes that say that the users, grants or profiles are not as relog needs them. */
const MISCONFIGURED: ReadonlySet<number> = new Set([115, 164, 192, 193, 194, 452, 472, 516]);

/** Codes of denied access; the gate should have refused such a statement before. */
const DENIED: ReadonlySet<number> = new Set([291, 446, 481, 497]);

/** Codes that are ClickHouse's own fault: logical errors and the like. */
const DEFECT: ReadonlySet<number> = new Set([49, 76, 173, 1000, 1001, 1002]);

/** Its text proposes tables, also those that are not this tenant's. */
const UNKNOWN_TABLE = 60;

const MESSAGE_CHARS_MAX = 1_000;

/**
 * The error for an exception of the engine.
 * @param code X-ClickHouse-Exception-Code; undefined when the answer was an HTTP error without one (a proxy, an overload)
 * @param message its text, for display
 */
export function failureOf(code: number | undefined, message: string, status = 500): RelogError {
  const details = code === undefined ? {} : { clickhouse: code };
  const cause = new Error(message.slice(0, MESSAGE_CHARS_MAX * 4));
  if (code === undefined || Number.isNaN(code)) {
    return new RelogError("store_unavailable", `ClickHouse answered with HTTP status ${status}`, { cause, retryAfterS: 2 });
  }
  const limit = LIMITS[code];
  if (limit !== undefined) return new RelogError("query_too_expensive", `the query passed the limit on ${limit}`, { cause, details });
  if (UNAVAILABLE.has(code)) return new RelogError("store_unavailable", "ClickHouse cannot answer now", { cause, details, retryAfterS: 2 });
  if (MISCONFIGURED.has(code))
    return new RelogError("store_misconfigured", "ClickHouse's users are not set up as relog needs them", { cause, details });
  if (DENIED.has(code))
    return new RelogError("query_refused", "ClickHouse denied access to something in the statement", { cause, details });
  if (DEFECT.has(code)) return new RelogError("internal", "internal error", { cause, details });
  const words = code === UNKNOWN_TABLE ? message.replace(/ Maybe you meant [\s\S]*/, "") : message;
  return new RelogError("query_invalid", readable(words), { cause, details: { ...details, ...placeOf(message) } });
}

/** The engine's words without its wrapping. */
function readable(message: string): string {
  const words = message
    .trim()
    .replace(/^Code: \d+\. DB::Exception: /, "")
    .replace(/ \(version [^)]*\)$/, "");
  return words.length > MESSAGE_CHARS_MAX ? `${words.slice(0, MESSAGE_CHARS_MAX)} ...` : words;
}

/** The place of a syntax error, for display: the position counts bytes of the statement from 1. */
function placeOf(message: string): { position?: number; token?: string } {
  const match = /failed at position (\d+) \(([^)]{0,100})\)/.exec(message);
  return match ? { position: Number(match[1]), token: match[2]! } : {};
}

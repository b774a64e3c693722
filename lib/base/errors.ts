// The one catalogue of errors that leave the house.
//
// Promises: every error an operator or a client can see has a code from ERRORS; code decides on codes, never on texts;
// docs/ERRORS.md is generated from this table and a test keeps the two equal.

/** What a client should do: `fix` the request, `retry` the same request later, or `operator`: someone has to look at the installation. */
export type Remedy = "fix" | "retry" | "operator";

export interface ErrorEntry {
  /** HTTP status. */
  readonly status: number;
  readonly remedy: Remedy;
  /** One sentence: what to do about it. */
  readonly help: string;
}

export const ERRORS = {
  // Credentials
  unauthenticated: {
    status: 401,
    remedy: "fix",
    help: "Send `Authorization: Bearer <key>` or `X-API-Key: <key>` with a key of this installation.",
  },
  forbidden: { status: 403, remedy: "fix", help: "Use a key with the scope or the rights that the message names." },
  // Requests
  not_found: { status: 404, remedy: "fix", help: "Check the path and the id; README.md lists the endpoints." },
  method_not_allowed: { status: 405, remedy: "fix", help: "Use the method that the message names." },
  unsupported_media_type: { status: 415, remedy: "fix", help: "Send a Content-Type or Content-Encoding that the message lists." },
  not_acceptable: { status: 406, remedy: "fix", help: "Send an Accept header with one of the formats that the message lists." },
  bad_request: { status: 400, remedy: "fix", help: "Correct what the message names and send the request again." },
  bad_encoding: { status: 400, remedy: "fix", help: "The body is not what Content-Encoding says; compress it again or drop the header." },
  empty_body: { status: 400, remedy: "fix", help: "Send at least one record." },
  all_rejected: {
    status: 400,
    remedy: "fix",
    help: "No record of the request could be stored; `errors` lists the first ones with their reason.",
  },
  idempotency_key_invalid: { status: 400, remedy: "fix", help: "Use 1 to 200 printable ASCII characters without spaces." },
  idempotency_key_reused: { status: 422, remedy: "fix", help: "This key was used with another body; use a new key for a new body." },
  // Bounds
  body_too_large: { status: 413, remedy: "fix", help: "Send smaller requests, or raise the setting that the message names." },
  compression_ratio: { status: 413, remedy: "fix", help: "Send the body less compressed, or raise the setting that the message names." },
  too_many_requests: {
    status: 429,
    remedy: "retry",
    help: "Wait as long as Retry-After says; send fewer, larger batches or add gateways.",
  },
  too_many_bytes: { status: 429, remedy: "retry", help: "Wait as long as Retry-After says; send less at once or add gateways." },
  rate_limited: {
    status: 429,
    remedy: "retry",
    help: "Wait as long as Retry-After says; the message names the limit, RateLimit says what is left.",
  },
  quota_exceeded: {
    status: 429,
    remedy: "retry",
    help: "The quota that the message names is used up until Retry-After; an operator may raise it, and over_quota says what becomes of records meanwhile.",
  },
  too_many_classes: {
    status: 409,
    remedy: "fix",
    help: "Use one of the classes of retention that the message lists, or take one away from every tenant that has it first.",
  },
  too_many_tails: { status: 429, remedy: "retry", help: "End another live tail first; the message names the limit." },
  // The streams
  stream_full: {
    status: 503,
    remedy: "retry",
    help: "Retry after Retry-After; operators: projectors are behind or RELOG_STREAM_BYTES_MAX is too small.",
  },
  stream_unavailable: {
    status: 503,
    remedy: "retry",
    help: "Retry after Retry-After; operators: JetStream has no leader or cannot be reached.",
  },
  outcome_unknown: {
    status: 503,
    remedy: "retry",
    help: "The batch may be stored. Retry with the same Idempotency-Key and it is stored once.",
  },
  not_ready: { status: 503, remedy: "retry", help: "This process is starting; `/readyz` says what it waits for." },
  // Queries
  query_refused: { status: 400, remedy: "fix", help: "Use only what docs/SQL.md lists." },
  query_invalid: { status: 400, remedy: "fix", help: "Correct the statement; the message points to the place." },
  query_too_expensive: {
    status: 400,
    remedy: "fix",
    help: "Narrow the time range or aggregate more; the message names the limit and its setting.",
  },
  too_many_queries: { status: 429, remedy: "retry", help: "Wait for other queries to end, as long as Retry-After says." },
  store_unavailable: { status: 503, remedy: "retry", help: "ClickHouse cannot be reached. Ingestion goes on; retry after Retry-After." },
  store_misconfigured: {
    status: 500,
    remedy: "operator",
    help: "The users or profiles of ClickHouse differ from ops/clickhouse; docs/SQL.md lists what the reader needs.",
  },
  // Operating
  rebuild_running: {
    status: 409,
    remedy: "fix",
    help: "One rebuild of a site at a time: wait for it, go on with it by starting it again with the same options, or abort it.",
  },
  archive_damaged: {
    status: 500,
    remedy: "operator",
    help: "Restore the object that the message names, or leave out what it holds with --skip-missing.",
  },
  archive_table_filling: {
    status: 409,
    remedy: "retry",
    help: "The table is being filled from the archive. Wait until it is complete; operators: `relog rehydrate list` says how far it is.",
  },
  dead_letters_busy: {
    status: 409,
    remedy: "retry",
    help: "One retry of a generation's dead letters at a time: wait as long as Retry-After says.",
  },
  // Accounts
  tenant_exists: { status: 409, remedy: "fix", help: "Use the tenant that is there, or choose another name." },
  tenant_deleted: { status: 409, remedy: "fix", help: "A deleted tenant's name is not used again; choose another name." },
  too_many_keys: { status: 409, remedy: "fix", help: "Revoke keys that are not used any more, the expired ones too." },
  key_ended: { status: 409, remedy: "fix", help: "Make a new key, or give an expired one another expiry; a revoked key stays so." },
  key_rotated: { status: 409, remedy: "fix", help: "Two keys of a rotation live at once: go on with the one that the message names." },
  accounts_busy: { status: 503, remedy: "retry", help: "Others are changing the same tenant; try again." },
  // Us
  internal: { status: 500, remedy: "operator", help: "This is a defect; the process's log has the details under the request id." },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

export interface RelogErrorOptions {
  cause?: unknown;
  /** Seconds until a retry is worth it; becomes `Retry-After`. */
  retryAfterS?: number;
  /** Machine-readable facts that go into the answer beside code and message. */
  details?: Record<string, unknown>;
}

/** An operating error with a code of the catalogue. Programmer errors are plain `Error`s and end as `internal`. */
export class RelogError extends Error {
  override readonly name = "RelogError";
  readonly code: ErrorCode;
  readonly retryAfterS: number | undefined;
  readonly details: Record<string, unknown> | undefined;

  constructor(code: ErrorCode, message: string, options: RelogErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.code = code;
    this.retryAfterS = options.retryAfterS;
    this.details = options.details;
  }

  get entry(): ErrorEntry {
    return ERRORS[this.code];
  }
}

/** The contract's error body: `{"error":{"code","message","help", ...details}}`. */
export function errorBody(error: RelogError): { error: Record<string, unknown> } {
  return { error: { code: error.code, message: error.message, help: error.entry.help, ...error.details } };
}

/** Wraps anything thrown as a RelogError; what is not one already becomes `internal` without leaking its text. */
export function toRelogError(thrown: unknown): RelogError {
  if (thrown instanceof RelogError) return thrown;
  return new RelogError("internal", "internal error", { cause: thrown });
}

/** The text of anything thrown, for logs. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

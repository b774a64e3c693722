// One ClickHouse, spoken to over HTTP: the only place that knows @clickhouse/client.
//
// Promises: a request answers with the engine's bytes as they come, or throws a RelogError chosen by the engine's numeric
// code; aborting closes the connection; connections are kept alive and bounded. Nothing is retried here: whether a
// second try is safe is known only by the caller.

import type { Readable } from "node:stream";
import { createClient } from "@clickhouse/client";
import { duration, integer, secret, text } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import { failureOf } from "./failure.ts";

export const clickhouseSettings = {
  url: text("CLICKHOUSE_URL", undefined, "the ClickHouse server, for example http://127.0.0.1:8123; `npm start` brings its own"),
  user: text("CLICKHOUSE_USER", "relog", "the user that writes and migrates"),
  password: secret("CLICKHOUSE_PASSWORD", "", "its password"),
  connectionsMax: integer("CLICKHOUSE_CONNECTIONS_MAX", "64", [1, 4096], "connections", "open at once per process and user; more wait"),
  requestTimeMaxMs: duration(
    "CLICKHOUSE_REQUEST_TIME_MAX",
    "90s",
    "silence after which a connection counts as dead; longer than any query may take",
  ),
};

export const clickhouseReaderSettings = {
  readerUser: text("CLICKHOUSE_READER_USER", "reader", "the restricted user that runs what people ask; see docs/SQL.md"),
  readerPassword: secret("CLICKHOUSE_READER_PASSWORD", "", "its password"),
};

export interface ClickHouseOptions {
  readonly url: string;
  readonly user: string;
  readonly password: string;
  readonly connectionsMax?: number;
  /** Silence on a connection after which it counts as dead, in milliseconds. */
  readonly requestTimeMaxMs?: number;
}

export type SettingValue = string | number | boolean;

export interface StoreRequest {
  /** One statement; with a `body` it is an INSERT and travels in the URL. */
  readonly statement: string;
  readonly database?: string;
  /** Values of `{name:Type}`. */
  readonly params?: Readonly<Record<string, unknown>>;
  /** Settings of the engine, and parameters of its HTTP interface such as `default_format`. */
  readonly settings?: Readonly<Record<string, SettingValue>>;
  readonly queryId?: string;
  readonly body?: Readable;
  /** More headers, for example `Content-Encoding: zstd` of a body that is compressed already. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

export interface StoreAnswer {
  readonly queryId: string;
  /** The answer's bytes. It must be read to its end or destroyed. */
  readonly stream: Readable;
  /** Marks an exception inside the stream; see lib/store/select.ts. */
  readonly exceptionTag: string | undefined;
  /** X-ClickHouse-Summary as it was when the headers were sent; undefined when there is none. */
  readonly summary: Readonly<Record<string, string>> | undefined;
}

export interface ClickHouse extends AsyncDisposable {
  readonly user: string;
  /** Sends one statement. @throws RelogError by the engine's code, or store_unavailable */
  request(request: StoreRequest): Promise<StoreAnswer>;
  /** Sends one statement and reads its answer, at most `bytesMax` bytes. @throws RelogError as `request` */
  read(request: StoreRequest, bytesMax?: number): Promise<Buffer>;
}

const READ_BYTES_MAX = 16 * 2 ** 20;
const FAILURE_BYTES_MAX = 64 * 2 ** 10;
/** Below the server's own keep-alive of 30 s (10 s on some versions), so that a request never meets a closing socket. */
const IDLE_SOCKET_MS = 5_000;

/** Opens a client for one user of one server. Nothing is sent until the first request. */
export function openClickHouse(options: ClickHouseOptions): ClickHouse {
  const client = createClient({
    url: options.url,
    username: options.user,
    password: options.password,
    max_open_connections: options.connectionsMax ?? 64,
    request_timeout: options.requestTimeMaxMs ?? 90_000,
    keep_alive: { enabled: true, idle_socket_ttl: IDLE_SOCKET_MS, eagerly_destroy_stale_sockets: true },
    compression: { request: false, response: false },
    log: { level: 127 },
  });

  async function request(request: StoreRequest): Promise<StoreAnswer> {
    const settings = { ...request.settings, ...(request.database === undefined ? {} : { database: request.database }) };
    const params = {
      query: request.statement,
      query_params: { ...request.params },
      clickhouse_settings: settings as Record<string, SettingValue>,
      ...(request.queryId === undefined ? {} : { query_id: request.queryId }),
      ...(request.signal === undefined ? {} : { abort_signal: request.signal }),
      ...(request.headers === undefined ? {} : { http_headers: { ...request.headers } }),
      ignore_error_response: true,
      decompress_response_stream: false,
    };
    const sent = request.body === undefined ? client.exec(params) : client.exec({ ...params, values: request.body });
    const answer = await sent.catch((cause: unknown) => {
      throw new RelogError("store_unavailable", "ClickHouse cannot be reached", { cause, retryAfterS: 2 });
    });
    const header = (name: string): string | undefined => {
      const value = answer.response_headers[name];
      return Array.isArray(value) ? value[0] : value;
    };
    const code = header("x-clickhouse-exception-code");
    const status = answer.http_status_code ?? 200;
    if (code !== undefined || status >= 400) {
      const message = await readAll(answer.stream, FAILURE_BYTES_MAX).catch(() => Buffer.alloc(0));
      throw failureOf(code === undefined ? undefined : Number(code), message.toString("utf8"), status);
    }
    return {
      queryId: answer.query_id,
      stream: answer.stream,
      exceptionTag: header("x-clickhouse-exception-tag"),
      summary: answer.summary as Record<string, string> | undefined,
    };
  }

  return {
    user: options.user,
    request,
    async read(what, bytesMax = READ_BYTES_MAX) {
      // Small answers only: the engine holds them back until it knows that they are whole.
      const answer = await request({ ...what, settings: { wait_end_of_query: 1, ...what.settings } });
      return await readAll(answer.stream, bytesMax);
    },
    [Symbol.asyncDispose]: () => client.close(),
  };
}

async function readAll(stream: Readable, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > bytesMax) throw new RelogError("query_too_expensive", `the answer is larger than ${bytesMax} bytes`);
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof RelogError) throw cause;
    throw new RelogError("store_unavailable", "the connection to ClickHouse broke", { cause, retryAfterS: 2 });
  } finally {
    stream.destroy();
  }
  return Buffer.concat(chunks);
}

// POST /v1/query: one SELECT in, its answer streamed out.
//
// Promises: the tenant comes from the credential; the gate reads every statement before the engine does; running queries
// are bounded; nothing of an answer is kept beyond what the select port holds back; a caller that leaves cancels its
// query. An error after the first byte breaks the connection, so that no client takes a part for the whole; in NDJSON
// a last line {"error": ...} says why.

import { randomUUID } from "node:crypto";
import type { Socket } from "node:net";
import type { Context } from "hono";
import { Hono } from "hono";
import { errorBody, RelogError, toRelogError } from "../base/errors.ts";
import { withContractErrors } from "../base/http.ts";
import type { Authenticate, Principal } from "../base/principal.ts";
import { authorize } from "../base/principal.ts";
import type { Telemetry } from "../base/telemetry.ts";
import { LATENCY_BUCKETS_S } from "../base/telemetry.ts";
import type { AnswerFormat } from "./formats.ts";
import { chooseFormat } from "./formats.ts";
import type { QueryLimits, QueryTenancy } from "./limits.ts";
import { engineSettings, NO_TENANCY, namingTenant, narrowed } from "./limits.ts";
import type { Places } from "./place.ts";
import { places } from "./place.ts";
import { holdBack } from "./refusals.ts";
import { readQueryRequest } from "./request.ts";
import type { Gate, SideTables } from "./sql/gate.ts";
import { NO_TABLES } from "./sql/gate.ts";

export interface QueryAnswer {
  readonly queryId: string;
  readonly body: AsyncGenerator<Uint8Array, void, undefined>;
}

/** Runs what the gate let through; see lib/store/select.ts. */
export type Select = (request: {
  sql: string;
  format: string;
  database: string;
  archive: boolean;
  tenant: string;
  params: Readonly<Record<string, unknown>>;
  settings: Readonly<Record<string, string | number>>;
  queryId: string;
  signal: AbortSignal;
}) => Promise<QueryAnswer>;

export interface QueryPorts {
  readonly authenticate: Authenticate;
  readonly gate: Gate;
  readonly select: Select;
  /** The database of the live generation. */
  readonly liveDatabase: () => string;
  /** Tables from the archive that a tenant may use; none when it is absent. */
  readonly sideTables?: (tenant: string) => SideTables;
  /** Tenants' own limits; none when it is absent. */
  readonly tenancy?: QueryTenancy;
}

/** @param sqlBytesMax bounds the request body together with `limits.paramsBytesMax` */
export function queryApi(ports: QueryPorts, limits: QueryLimits, sqlBytesMax: number, telemetry: Telemetry): Hono {
  const tenancy = ports.tenancy ?? NO_TENANCY;
  const running = places(limits, tenancy);
  const takePlace = placeTaker(running, tenancy, limits.refusalDelayMs);
  const metrics = queryMetrics(telemetry, running);
  // JSON escapes may double a statement.
  const bodyBytesMax = 2 * sqlBytesMax + 2 * limits.paramsBytesMax + 1_024;

  async function answer(c: Context): Promise<Response> {
    const caller = () => authorize(ports.authenticate, (name) => c.req.header(name), "query");
    await caller();
    const format = chooseFormat(c.req.header("accept"));
    const request = await readQueryRequest(c, limits.paramsBytesMax, bodyBytesMax);
    // The statement may come long after its headers: a key that was revoked meanwhile asks nothing.
    const principal = await caller();
    const place = await takePlace(c, principal);
    const own = tenancy.limitsOf(principal);
    const named = (thrown: unknown): RelogError => namingTenant(toRelogError(thrown), limits, own, principal.tenant);
    const leave = new AbortController();
    const signal = AbortSignal.any([leave.signal, c.req.raw.signal]);
    const queryId = `query-${randomUUID()}`;
    const started = performance.now();
    let over = false;
    const done = (error: RelogError | undefined): void => {
      if (over) return;
      over = true;
      place[Symbol.dispose]();
      if (error?.code === "internal") telemetry.log.error({ err: error.cause, queryId }, "a query failed");
      metrics.done(signal.aborted ? "cancelled" : (error?.code ?? "ok"), (performance.now() - started) / 1_000);
    };
    try {
      const { tenant } = principal;
      const side = ports.sideTables?.(tenant) ?? NO_TABLES;
      const sql = await ports.gate(request.sql, request.params, side);
      const database = ports.liveDatabase();
      const archive = side.size > 0;
      const settings = engineSettings(narrowed(limits, own, tenancy.presses(principal)));
      const run = { sql, format: format.engine, database, archive, tenant, params: request.params, settings, queryId, signal };
      const { body } = await ports.select(run);
      const socket = (c.env as { outgoing?: { socket: Socket | null } } | undefined)?.outgoing?.socket ?? undefined;
      const headers = { "content-type": format.contentType, "x-relog-query-id": queryId, "cache-control": "no-store" };
      return c.newResponse(streamOf(body, format, leave, socket, limits.resultBytesMax, named, done), { status: 200, headers });
    } catch (thrown) {
      const error = named(thrown);
      done(error);
      c.header("x-relog-query-id", queryId);
      throw error;
    }
  }

  const app = new Hono();
  app.post("/v1/query", answer);
  app.all("/v1/query", () => {
    throw new RelogError("method_not_allowed", "/v1/query takes POST");
  });
  return withContractErrors(app, telemetry.log);
}

/** Takes a place; the answer says what is left, also when there is none, and that a little later. */
function placeTaker(running: Places, tenancy: QueryTenancy, refusalDelayMs: number) {
  const hold = holdBack(refusalDelayMs);
  /** @throws RelogError too_many_queries */
  return async (c: Context, principal: Principal): Promise<Disposable> => {
    const say = (): void => {
      for (const [name, value] of tenancy.fields(principal)) c.header(name, value);
    };
    try {
      const place = running.take(principal);
      say();
      return place;
    } catch (error) {
      say();
      await hold(c.req.raw.signal);
      throw error;
    }
  };
}

/** The answer as a stream that reports its end once, and that cancels the query when nobody reads on. */
function streamOf(
  body: QueryAnswer["body"],
  format: AnswerFormat,
  leave: AbortController,
  socket: Socket | undefined,
  bytesMax: number,
  named: (thrown: unknown) => RelogError,
  done: (error: RelogError | undefined) => void,
): ReadableStream<Uint8Array> {
  let lastByte = 0x0a;
  let sent = 0;
  let failure: RelogError | undefined;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (failure !== undefined) return await breakOff(controller, socket, failure);
      try {
        const next = await body.next();
        if (!next.done) {
          sent += next.value.length;
          if (sent > bytesMax) throw tooMuch(bytesMax);
          lastByte = next.value.at(-1) ?? lastByte;
          controller.enqueue(next.value);
          return;
        }
        done(undefined);
        controller.close();
      } catch (thrown) {
        failure = named(thrown);
        done(failure);
        leave.abort();
        body.return().catch(() => undefined);
        if (format.engine !== "JSONEachRow") return await breakOff(controller, socket, failure);
        // The line is on its way when the next pull comes, and that one breaks the connection.
        controller.enqueue(new TextEncoder().encode(`${lastByte === 0x0a ? "" : "\n"}${JSON.stringify(errorBody(failure))}\n`));
      }
    },
    cancel() {
      // Ends a read that is waiting for the engine, which return() would wait for.
      leave.abort();
      done(undefined);
      body.return().catch(() => undefined);
    },
  });
}

/** The engine counts a constant column once, so the answer is counted here as well. */
function tooMuch(bytesMax: number): RelogError {
  return new RelogError(
    "query_too_expensive",
    `the query passed the limit on size of the answer, ${bytesMax} bytes (RELOG_QUERY_RESULT_BYTES_MAX)`,
  );
}

/**
 * Ends an answer so that it cannot be taken for a whole one: what is written is sent, the last chunk is not. Erroring the
 * stream would not do: the server then writes the error's text and a proper end.
 */
async function breakOff(controller: ReadableStreamDefaultController, socket: Socket | undefined, failure: RelogError): Promise<void> {
  if (socket === undefined) return controller.error(failure);
  await new Promise((resolve) => setImmediate(resolve));
  socket.destroySoon();
}

function queryMetrics(telemetry: Telemetry, running: Places): { done(outcome: string, seconds: number): void } {
  const count = telemetry.counter("relog_queries_total", "Queries by outcome: ok, cancelled or an error's code.", ["outcome"]);
  const time = telemetry.histogram("relog_query_duration_seconds", "From the request to the end of its answer.", LATENCY_BUCKETS_S);
  telemetry.gauge("relog_queries_running", "Queries running now.", [], (gauge) => gauge.set(running.used));
  return {
    done(outcome, seconds) {
      count.inc({ outcome });
      time.observe(seconds);
    },
  };
}

// GET /v1/tail: a tenant's records as they are acknowledged, without end.
//
// Promises: the tenant comes from the credential; tails are bounded in number, life, memory and rate; one ends within a second
// after its key or tenant has, and nothing that waits for it is sent then; a reader that leaves, or takes nothing for long,
// frees everything; the last line says why a tail was ended. It needs the streams alone: ClickHouse may be away.

import type { Socket } from "node:net";
import type { Context } from "hono";
import { Hono } from "hono";
import type { Clock } from "../base/clock.ts";
import { errorBody, messageOf, RelogError } from "../base/errors.ts";
import { withContractErrors } from "../base/http.ts";
import { sleep } from "../base/loop.ts";
import type { Authenticate, Principal } from "../base/principal.ts";
import { authorize } from "../base/principal.ts";
import type { Telemetry } from "../base/telemetry.ts";
import type { TailSource } from "../streams/tail.ts";
import { readTailRequest } from "./filter.ts";
import type { TailFormat } from "./format.ts";
import { chooseTailFormat } from "./format.ts";
import type { TailLimits } from "./limits.ts";
import type { SessionPorts, TailStart } from "./session.ts";
import { TailSession } from "./session.ts";
import type { Slots } from "./slots.ts";
import { tailStart } from "./start.ts";

export interface TailPorts {
  readonly authenticate: Authenticate;
  readonly source: TailSource;
  /** Whether a credential that was good when the tail began still is. */
  readonly alive: (principal: Principal) => boolean;
  /** Calls `listener` with the tenant after each change that may end a credential. */
  readonly onChange: (listener: (tenant: string) => void) => Disposable;
  readonly slots: Slots;
  readonly clock: Clock;
  /** Aborts when this process leaves. */
  readonly leaving: AbortSignal;
}

const CHECK_MS = 500;
/** How long a tail that was ended may take to be read to its end. */
const LAST_WORDS_MS = 1_000;
const CHUNK_BYTES = 64 * 1024;
const UNAVAILABLE_RETRY_S = 2;
const ENDED = "the API key has ended, or its tenant has";

export function tailApi(ports: TailPorts, limits: TailLimits, telemetry: Telemetry): Hono {
  const metrics = tailMetrics(telemetry);
  const { log } = telemetry;

  async function answer(c: Context): Promise<Response> {
    const principal = await authorize(ports.authenticate, (name) => c.req.header(name), "query");
    if (c.req.method !== "GET") throw new RelogError("method_not_allowed", "/v1/tail takes GET");
    const format = chooseTailFormat(c.req.header("accept"));
    const request = readTailRequest(new URL(c.req.url).searchParams, ports.clock.now());
    if (ports.leaving.aborted) throw new RelogError("not_ready", "this process is leaving", { retryAfterS: 1 });
    using undo = new DisposableStack();
    undo.use(ports.slots(principal));
    metrics.running++;
    undo.defer(() => void metrics.running--);
    const start = await started(ports.source, c.req.header("last-event-id"), request.sinceMs);
    if (!ports.alive(principal)) throw new RelogError("unauthenticated", ENDED);
    const session = new TailSession(
      { ...ports, log, openedPerSecond: () => limits.openedPerSecond / Math.max(1, metrics.running), ...metrics.session },
      limits,
      principal.tenant,
      request,
      start,
      format.cursors,
    );
    const socket = (c.env as { outgoing?: { socket: Socket | null } } | undefined)?.outgoing?.socket ?? undefined;
    const connection = new TailConnection(ports, limits, principal, session, format, socket, log);
    // Whatever happens from here on is the connection's to undo.
    const headers = { "content-type": format.contentType, "cache-control": "no-store", "x-accel-buffering": "no" };
    return new Response(connection.open(start, undo.move()), { status: 200, headers });
  }

  const app = new Hono();
  app.get("/v1/tail", answer);
  app.all("/v1/tail", () => {
    throw new RelogError("method_not_allowed", "/v1/tail takes GET");
  });
  return withContractErrors(app, log);
}

async function started(source: TailSource, cursor: string | undefined, sinceMs: number | undefined): Promise<TailStart> {
  try {
    return await tailStart(source, cursor, sinceMs);
  } catch (cause) {
    if (cause instanceof RelogError) throw cause;
    const text = `the streams cannot be read now: ${messageOf(cause)}`;
    throw new RelogError("stream_unavailable", text, { cause, retryAfterS: UNAVAILABLE_RETRY_S });
  }
}

/** A session and the connection that it is read over. */
class TailConnection {
  readonly #ports: TailPorts;
  readonly #limits: TailLimits;
  readonly #principal: Principal;
  readonly #session: TailSession;
  readonly #format: TailFormat;
  readonly #socket: Socket | undefined;
  readonly #log: Telemetry["log"];
  readonly #over = new AbortController();
  readonly #owned = new DisposableStack();
  readonly #beganMs: number;
  /** When the reader last took something; undefined while it waits for more. */
  #tookMs: number | undefined;
  #endedMs: number | undefined;

  constructor(
    ports: TailPorts,
    limits: TailLimits,
    principal: Principal,
    session: TailSession,
    format: TailFormat,
    socket: Socket | undefined,
    log: Telemetry["log"],
  ) {
    [this.#ports, this.#limits, this.#principal, this.#session] = [ports, limits, principal, session];
    [this.#format, this.#socket, this.#log] = [format, socket, log];
    this.#beganMs = ports.clock.monotonicMs();
    this.#tookMs = this.#beganMs;
  }

  /** Begins to follow. @param taken is disposed at the end */
  open(start: TailStart, taken: DisposableStack): ReadableStream<Uint8Array> {
    const owned = this.#owned;
    owned.use(taken);
    owned.defer(() => this.#over.abort());
    owned.defer(() => this.#session.queue.end());
    owned.use(this.#ports.onChange((tenant) => tenant === this.#principal.tenant && this.#check()));
    const timer = setInterval(() => this.#check(), CHECK_MS);
    owned.defer(() => clearInterval(timer));
    const leave = (): void => this.#end("end", { end: { why: "this process is leaving", cursor: this.#session.cursor } });
    this.#ports.leaving.addEventListener("abort", leave);
    owned.defer(() => this.#ports.leaving.removeEventListener("abort", leave));
    this.#session.run(start.heads, this.#over.signal).catch((error: unknown) => {
      this.#log.error({ err: error }, "a live tail failed");
      this.#end("error", errorBody(new RelogError("internal", "internal error")));
    });
    let first: string | undefined = this.#format.begin(this.#session.cursor);
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          const text = first ?? (await this.#next());
          first = undefined;
          if (text !== undefined) return controller.enqueue(Buffer.from(text));
          this.#owned.dispose();
          controller.close();
        },
        cancel: () => this.#owned.dispose(),
      },
      { highWaterMark: 0 },
    );
  }

  /** What to send next; undefined at the end. */
  async #next(): Promise<string | undefined> {
    const { queue } = this.#session;
    this.#tookMs = undefined;
    try {
      if (!queue.waiting && !queue.closed) await this.#filled();
      const entries = queue.take(CHUNK_BYTES);
      if (entries.length > 0) return entries.map((entry) => this.#format.text(entry)).join("");
      return queue.closed ? undefined : this.#format.idle(this.#session.cursor);
    } finally {
      this.#tookMs = this.#ports.clock.monotonicMs();
    }
  }

  async #filled(): Promise<void> {
    const enough = new AbortController();
    await Promise.race([this.#session.queue.filled(), sleep(this.#limits.keepAliveMs, enough.signal)]);
    enough.abort();
  }

  #check(): void {
    const nowMs = this.#ports.clock.monotonicMs();
    if (this.#endedMs !== undefined) {
      if (nowMs - this.#endedMs >= LAST_WORDS_MS) this.#breakOff();
    } else if (!this.#ports.alive(this.#principal)) {
      this.#end("error", errorBody(new RelogError("unauthenticated", ENDED)), true);
    } else if (nowMs - this.#beganMs >= this.#limits.lifeMaxMs) {
      const why = `a live tail lasts ${this.#limits.lifeMaxMs} ms (RELOG_TAIL_LIFE_MAX)`;
      this.#end("end", { end: { why, cursor: this.#session.cursor } });
    } else if (this.#tookMs !== undefined && nowMs - this.#tookMs >= this.#limits.stallMs) this.#breakOff();
  }

  /** @param drop what waits is not sent any more */
  #end(event: string, value: object, drop = false): void {
    if (this.#endedMs !== undefined) return;
    this.#endedMs = this.#ports.clock.monotonicMs();
    this.#over.abort();
    this.#session.queue.close(event, value, drop);
  }

  /** For a reader that does not read. */
  #breakOff(): void {
    this.#owned.dispose();
    this.#socket?.destroy();
  }
}

function tailMetrics({ counter, gauge }: Telemetry): { running: number; session: Pick<SessionPorts, "sent" | "skipped"> } {
  const sent = counter("relog_tail_records_total", "Records that went to live tails.");
  const skipped = counter("relog_tail_skipped_total", "Records that did not, by reason; unopened ones may not have been wanted.", [
    "reason",
  ]);
  const metrics = {
    running: 0,
    session: {
      sent: (records: number) => sent.inc(records),
      skipped: (reason: string, records: number) => skipped.inc({ reason }, records),
    },
  };
  gauge("relog_tails_running", "Live tails running now.", [], (one) => one.set(metrics.running));
  return metrics;
}

// Serving a Hono app, and the answer for anything thrown in it.

import { randomUUID } from "node:crypto";
import { serve } from "@hono/node-server";
import type { Context, Hono } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { duration, text } from "./config.ts";
import { errorBody, RelogError, toRelogError } from "./errors.ts";
import { harmless } from "./harmless.ts";
import type { Logger } from "./telemetry.ts";

export const httpSettings = {
  listenHost: text("RELOG_LISTEN_HOST", "127.0.0.1", "the address HTTP servers bind to; containers use 0.0.0.0"),
  drainMs: duration("RELOG_DRAIN_TIME", "0s", "how long a process that got SIGTERM stays up as not ready, so that load balancers notice"),
};

/** Answers anything thrown with the contract's error body; what is not in the catalogue is logged whole and answered as `internal`. */
function answerError(log: Logger, thrown: unknown, c: Context): Response {
  const error = toRelogError(thrown);
  const body = errorBody(error);
  if (error.code === "internal") {
    const request = randomUUID();
    body.error.request = request;
    log.error({ err: error.cause, request, method: c.req.method, path: c.req.path }, "request failed");
  }
  if (error.retryAfterS !== undefined) c.header("Retry-After", String(Math.max(1, Math.ceil(error.retryAfterS))));
  const headers = { "content-type": "application/json" };
  return c.body(harmless(JSON.stringify(body)), error.entry.status as ContentfulStatusCode, headers);
}

/** Adds the two handlers that make every answer of an app follow the contract. */
export function withContractErrors<A extends Hono>(app: A, log: Logger): A {
  app.onError((thrown, c) => answerError(log, thrown, c));
  app.notFound((c) => answerError(log, new RelogError("not_found", `there is no ${c.req.method} ${c.req.path}`), c));
  return app;
}

export interface HttpServer extends AsyncDisposable {
  readonly port: number;
}

/** What answers requests. A process swaps it when it has become ready to serve more than its health. */
export interface Front {
  app: Pick<Hono, "fetch">;
}

/** Less than what `npm start` and compose give a process to leave. */
const GRACE_MS = 3_500;
const SWEEP_MS = 50;

/**
 * Serves an app, or a front's current app, on host:port (0 takes a free port).
 * Disposing stops taking connections, lets running requests finish for `graceMs` milliseconds, then closes what is left.
 * @throws Error that names the address and the setting when the port is taken
 */
export async function serveHttp(
  front: Front | Pick<Hono, "fetch">,
  host: string,
  port: number,
  portSetting: string,
  graceMs = GRACE_MS,
): Promise<HttpServer> {
  let closing = false;
  async function answer(request: Request, env: object): Promise<Response> {
    const response = await ("app" in front ? front.app : front).fetch(request, env);
    if (closing) response.headers.set("Connection", "close");
    return response;
  }
  return await new Promise((resolve, reject) => {
    const server = serve(
      {
        fetch: answer,
        hostname: host,
        port,
        overrideGlobalObjects: false,
      },
      (info) => {
        server.off("error", onError);
        resolve({
          port: info.port,
          async [Symbol.asyncDispose]() {
            closing = true;
            if (!server.listening) return;
            const closed = new Promise<void>((done) => server.close(() => done()));
            // A connection that is busy now is idle after its answer, and its client would go on using it.
            const sweep = setInterval(() => "closeIdleConnections" in server && server.closeIdleConnections(), SWEEP_MS);
            const force = setTimeout(() => "closeAllConnections" in server && server.closeAllConnections(), graceMs);
            await closed;
            clearInterval(sweep);
            clearTimeout(force);
          },
        });
      },
    );
    function onError(error: NodeJS.ErrnoException): void {
      const taken = error.code === "EADDRINUSE" ? `port ${port} on ${host} is taken; move it with ${portSetting}` : error.message;
      reject(new Error(taken, { cause: error }));
    }
    server.on("error", onError);
  });
}

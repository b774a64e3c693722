// The life of a process: start in order, serve, drain on SIGTERM or SIGINT, stop in reverse, also after a failed start.

import type { Health } from "./health.ts";
import type { Logger } from "./telemetry.ts";

export interface Running {
  /** Resolves when the process should leave. */
  readonly stopping: Promise<string>;
}

/**
 * Runs `start` with a stack for what it opens, waits for a stop signal, then disposes the stack in reverse order.
 * @param drainMs how long the process stays up as "not ready" before it stops taking connections, in milliseconds
 * Exits 0 after a clean stop, 1 after a failed start or a failed stop.
 */
export async function runProcess(
  log: Logger,
  health: Health,
  drainMs: number,
  start: (stack: AsyncDisposableStack, signal: AbortSignal) => Promise<void>,
): Promise<never> {
  const abort = new AbortController();
  const stopped = Promise.withResolvers<string>();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stopped.resolve(signal));
  process.on("uncaughtException", (error) => {
    // A programmer error: the state is unknown, so the process ends at once. Everything that counts is in a stream.
    log.fatal({ err: error }, "uncaught exception; the process ends");
    process.exit(1);
  });
  let code = 0;
  const stack = new AsyncDisposableStack();
  try {
    await start(stack, abort.signal);
    const why = await stopped.promise;
    log.info({ why }, "draining");
    health.notReady("lifecycle", `draining after ${why}`);
    await new Promise((resolve) => setTimeout(resolve, drainMs));
  } catch (error) {
    log.fatal({ err: error }, `cannot start: ${(error as Error).message}`);
    code = 1;
  }
  abort.abort();
  try {
    await stack.disposeAsync();
    log.info("stopped");
  } catch (error) {
    log.error({ err: error }, "could not stop cleanly");
    code = 1;
  }
  process.exit(code);
}

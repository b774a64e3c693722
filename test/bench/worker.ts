// A helper process of the bench: prepares its work, reports, waits for "go", works, reports. So its CPU is its own.
//
// Promises: it ends with the bench, also when that is killed (the channel closes); a failure in it fails the bench.

import type { ChildProcess } from "node:child_process";
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

export type WorkerName = "sender" | "inserter" | "noise";

type Report = { kind: "ready" | "done"; value: unknown } | { kind: "failed"; why: string };

export interface Worker<Prepared, Done> extends AsyncDisposable {
  readonly pid: number;
  readonly prepared: Prepared;
  go(order: unknown): Promise<Done>;
}

/** Starts the worker and waits until it is prepared. @throws Error of the worker */
export async function startWorker<Prepared, Done>(name: WorkerName, work: unknown): Promise<Worker<Prepared, Done>> {
  const file = fileURLToPath(new URL(`./${name}-child.ts`, import.meta.url));
  const child = fork(file, [], { serialization: "advanced", env: { PATH: "", NODE_NO_WARNINGS: "1" }, execArgv: [] });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  async function stop(): Promise<void> {
    child.kill("SIGKILL");
    await ended;
  }
  try {
    child.send({ kind: "prepare", value: work });
    const prepared = (await reportOf(child, name, "ready")) as Prepared;
    return {
      pid: child.pid!,
      prepared,
      async go(order) {
        child.send({ kind: "go", value: order });
        return (await reportOf(child, name, "done")) as Done;
      },
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function reportOf(child: ChildProcess, name: string, wanted: Report["kind"]): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const onExit = (code: number | null, signal: string | null): void => reject(new Error(`the ${name} ended early: ${signal ?? code}`));
    child.once("exit", onExit);
    child.once("message", (report: Report) => {
      child.off("exit", onExit);
      if (report.kind === "failed") reject(new Error(`the ${name} failed: ${report.why}`));
      else if (report.kind === wanted) resolve(report.value);
      else reject(new Error(`the ${name} said ${report.kind}, not ${wanted}`));
    });
  });
}

/** The worker's side: both steps in order, then it waits to be ended. */
export function runWorker<Work, State, Order>(
  prepare: (work: Work) => Promise<{ state: State; report: unknown }>,
  carryOut: (state: State, order: Order) => Promise<unknown>,
): void {
  let state: State | undefined;
  const say = (report: Report): void => void process.send?.(report);
  process.on("disconnect", () => process.exit(1));
  process.on("message", (message: { kind: "prepare" | "go"; value: unknown }) => {
    const step = async (): Promise<Report> => {
      if (message.kind === "go") return { kind: "done", value: await carryOut(state as State, message.value as Order) };
      const made = await prepare(message.value as Work);
      state = made.state;
      return { kind: "ready", value: made.report };
    };
    step().then(say, (error: unknown) =>
      say({ kind: "failed", why: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    );
  });
}

// Where the lines of a dev stack go: each process's to a file of its own and to the stack's ingest, our own also to the terminal.
//
// Promises: what a child logs is kept without the secret part of any API key in it.

import { join } from "node:path";
import type { ChildOptions } from "./child.ts";
import { LogFile } from "./log-file.ts";
import type { OwnLogs } from "./own-logs.ts";
import type { Say } from "./steps.ts";

export interface Output extends Disposable {
  readonly say: Say;
  /** For a child: what becomes of its lines and its deaths. */
  hooks(name: string): Required<Pick<ChildOptions, "onLine" | "onDeath">>;
}

/** API keys, with what names them: an engine logs what a client that it refuses calls itself. */
const KEYS = /\b(relog_[a-z2-7]{16}|relog_dev)_(?:[a-z2-7]{52}|[0-9a-f]{32})/g;

/** A line of a log without the secret part of any key in it. */
export function withoutKeys(line: string): string {
  return line.replace(KEYS, "$1_...");
}

export function devOutput(dir: string, logs: OwnLogs, print: Say): Output {
  const files = new DisposableStack();
  function sink(name: string): { path: string; onLine: Say } {
    const file = files.use(new LogFile(join(dir, "logs", `${name}.log`)));
    return {
      path: file.path,
      onLine(line) {
        file.write(line);
        logs.add(name, line);
      },
    };
  }
  const own = sink("dev");
  function say(message: string): void {
    print(message);
    own.onLine(message);
  }
  return {
    say,
    hooks(name) {
      const { path, onLine } = sink(name);
      return {
        onLine: (line) => onLine(withoutKeys(line)),
        onDeath: (exit, ms) => say(`${name} died (${exit.signal ?? `exit ${exit.code}`}); restarting in ${ms} ms; ${path}`),
      };
    },
    [Symbol.dispose]: () => files.dispose(),
  };
}

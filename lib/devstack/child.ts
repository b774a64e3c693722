// A child process of the dev stack.
//
// Promises: dies with this process, also on SIGKILL (guard.ts); has a process group of its own, so that Ctrl-C reaches only
// the parent, which stops things in order; its last lines are kept, bounded, for error messages; when supervised it is
// restarted with backoff for ever, and each death is reported.

import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { backoffMs } from "../base/loop.ts";
import { GUARD_FD, guarded } from "./guard.ts";

const LINES_MAX = 200;
const LINE_CHARS_MAX = 64 * 1024;
const RESTART_FIRST_MS = 200;
const RESTART_MAX_MS = 10_000;
const SETTLED_MS = 30_000;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ChildOptions {
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment of the child; nothing is inherited. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly onLine?: (line: string) => void;
  /** Restart after an unasked death; called before each wait. */
  readonly onDeath?: (exit: Exit, restartInMs: number) => void;
}

export class Child implements AsyncDisposable {
  readonly name: string;
  readonly #options: ChildOptions;
  readonly #lines: string[] = [];
  #process: ChildProcess | undefined;
  #exited: Promise<Exit> = Promise.resolve({ code: null, signal: null });
  #wanted = false;
  #attempt = 0;
  #restart: NodeJS.Timeout | undefined;

  constructor(name: string, options: ChildOptions) {
    this.name = name;
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  get running(): boolean {
    return this.#process !== undefined;
  }

  /** Resolves when the present run has ended. */
  get exited(): Promise<Exit> {
    return this.#exited;
  }

  get lastLines(): readonly string[] {
    return this.#lines;
  }

  /** Starts it, if it does not run; the same command, ports and data as before. */
  start(): void {
    if (this.#process !== undefined) return;
    this.#wanted = true;
    const [command, args] = guarded(this.#options.command, this.#options.args);
    const startedAt = performance.now();
    const child = spawn(command, args, {
      cwd: this.#options.cwd,
      env: this.#options.env as NodeJS.ProcessEnv,
      detached: true,
      stdio: ["pipe", "pipe", "pipe", "pipe"],
    });
    this.#process = child;
    for (const stream of [child.stdin, child.stdio[GUARD_FD]]) stream?.on("error", () => undefined);
    for (const stream of [child.stdout, child.stderr]) this.#readLines(stream as NodeJS.ReadableStream);
    this.#exited = new Promise((resolve) => {
      child.once("error", (error) => {
        this.#keep(`cannot spawn ${this.#options.command}: ${error.message}`);
        if (child.pid === undefined) resolve({ code: 127, signal: null });
      });
      child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    void this.#exited.then((exit) => this.#ended(child, exit, performance.now() - startedAt));
  }

  #ended(child: ChildProcess, exit: Exit, ranMs: number): void {
    (child.stdio[GUARD_FD] as Writable).end("ended\n");
    child.stdin?.destroy();
    this.#process = undefined;
    if (!this.#wanted || this.#options.onDeath === undefined) return;
    if (ranMs > SETTLED_MS) this.#attempt = 0;
    const waitMs = Math.round(backoffMs(this.#attempt++, RESTART_FIRST_MS, RESTART_MAX_MS));
    this.#options.onDeath(exit, waitMs);
    this.#restart = setTimeout(() => this.start(), waitMs);
  }

  #keep(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > LINES_MAX) this.#lines.shift();
    this.#options.onLine?.(line);
  }

  #readLines(stream: NodeJS.ReadableStream): void {
    let rest = "";
    stream.setEncoding("utf8");
    stream.on("data", (chunk: string) => {
      const lines = (rest + chunk).split("\n");
      rest = (lines.pop() ?? "").slice(0, LINE_CHARS_MAX);
      for (const line of lines) if (line !== "") this.#keep(line.slice(0, LINE_CHARS_MAX));
    });
    stream.on("end", () => rest !== "" && this.#keep(rest));
  }

  kill(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  /** SIGSTOP: the process stays, but does nothing. */
  pause(): void {
    this.kill("SIGSTOP");
  }

  resume(): void {
    this.kill("SIGCONT");
  }

  /** SIGTERM, and SIGKILL after `graceMs` milliseconds; it is not restarted. Returns how it ended. */
  async stop(graceMs = 5_000): Promise<Exit> {
    this.#wanted = false;
    clearTimeout(this.#restart);
    if (this.#process === undefined) return await this.#exited;
    this.resume();
    this.kill("SIGTERM");
    const timer = setTimeout(() => this.kill("SIGKILL"), graceMs);
    const exit = await this.#exited;
    clearTimeout(timer);
    return exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

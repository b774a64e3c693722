// The log file of one process of the dev stack.
//
// Promises: at most `keep` + 1 files of about `bytesMax` bytes each, also within one run; a line is in the file when write()
// returns, so that nothing is missing after a kill; a full disk costs lines, never the process.

import { closeSync, fstatSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";

const BYTES_MAX = 8 * 2 ** 20;
const KEEP = 2;

export class LogFile implements Disposable {
  readonly path: string;
  readonly #bytesMax: number;
  readonly #keep: number;
  #fd: number;
  #bytes: number;

  /** Appends to what is there: a start is not a reason to lose the last run's lines. */
  constructor(path: string, bytesMax = BYTES_MAX, keep = KEEP) {
    this.path = path;
    this.#bytesMax = bytesMax;
    this.#keep = keep;
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    this.#fd = openSync(path, "a", 0o600);
    this.#bytes = fstatSync(this.#fd).size;
  }

  write(line: string): void {
    try {
      if (this.#bytes >= this.#bytesMax) this.#rotate();
      if (this.#fd < 0) this.#fd = openSync(this.path, "a", 0o600);
      this.#bytes += writeSync(this.#fd, `${line}\n`);
    } catch {
      // The same lines are shipped and kept in memory; a log file must not stop the stack.
    }
  }

  #rotate(): void {
    this[Symbol.dispose]();
    for (let i = this.#keep; i >= 1; i--) {
      try {
        renameSync(i === 1 ? this.path : `${this.path}.${i - 1}`, `${this.path}.${i}`);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
    this.#bytes = 0;
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

// The folder of a dev stack: one owner at a time, secrets made once, dev.json only while it is true.

import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { newAccountSeed } from "../streams/nkey.ts";

export interface Secrets {
  readonly key: string;
  readonly natsPassword: string;
  readonly natsSystemPassword: string;
  /** Seed of the account nkey that the gateways sign with. */
  readonly natsCalloutSeed: string;
  readonly clickhousePassword: string;
  readonly readerPassword: string;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** "pid start-time": a pid that was given to another process later is not taken for the owner. */
function identity(pid: number): string | undefined {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return undefined;
  }
  const stat = read(`/proc/${pid}/stat`);
  return `${pid} ${stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""}`;
}

/** Takes the folder. @throws Error that names the owner when it runs */
export function lockFolder(dir: string): Disposable {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const path = join(dir, "lock");
  for (let tries = 0; tries < 3; tries++) {
    try {
      writeFileSync(path, identity(process.pid)!, { flag: "wx", mode: 0o600 });
      return { [Symbol.dispose]: () => rmSync(path, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      const owner = read(path) ?? "";
      const pid = Number(owner.split(" ")[0]);
      if (pid > 0 && identity(pid) === owner)
        throw new Error(`${dir} is in use by pid ${pid}; stop that, or set RELOG_DIR to another folder`);
      rmSync(path, { force: true });
    }
  }
  throw new Error(`${dir} could not be locked`);
}

/** Writes a file whole or not at all, readable by its owner only. */
export function writeAtomically(path: string, content: string): void {
  const partial = `${path}.${process.pid}`;
  writeFileSync(partial, content, { mode: 0o600 });
  chmodSync(partial, 0o600);
  renameSync(partial, path);
}

/** The secrets of the folder, made at the first call; what a folder of an earlier version lacks is added. */
export function keepSecrets(dir: string): Secrets {
  const path = join(dir, "secrets.json");
  const kept = JSON.parse(read(path) ?? "{}") as Partial<Secrets>;
  const word = (prefix: string): string => prefix + randomBytes(16).toString("hex");
  const secrets: Secrets = {
    key: word("relog_dev_"),
    natsPassword: word("p"),
    natsSystemPassword: word("p"),
    natsCalloutSeed: newAccountSeed(),
    clickhousePassword: word("p"),
    readerPassword: word("p"),
    ...kept,
  };
  const content = `${JSON.stringify(secrets)}\n`;
  if (content !== read(path)) writeAtomically(path, content);
  return secrets;
}

// Objects in a folder: the embedded default.
//
// Promises: an object appears whole (temporary file, fsync, rename, fsync of the folder) or not at all, also when the
// machine loses power; what a killed writer leaves behind is never listed and is removed after a day.

import { randomBytes } from "node:crypto";
import type { Dirent } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat, unlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { DAY_MS } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { ObjectFacts, ObjectStore } from "./objects.ts";
import { checkKey, OBJECT_BYTES_MAX, ObjectStoreError, sha256Hex } from "./objects.ts";

/** Where objects are written before they get their name; no key can begin with a dot. */
const INCOMING = ".incoming";
const LEFTOVER_AGE_MS = DAY_MS;

/** The objects of a folder, which is created with the first one. */
export function localObjects(folder: string): ObjectStore {
  const root = resolve(folder);
  let swept: Promise<void> | undefined;

  const guarded = <T>(what: string, key: string, action: () => Promise<T>): Promise<T> => guard(root, what, key, action);

  function pathOf(key: string): string {
    checkKey(key);
    return join(root, key);
  }

  return {
    name: root,
    async put(key, bytes, sha256) {
      const path = pathOf(key);
      if (sha256Hex(bytes) !== sha256) throw new ObjectStoreError(`archive folder ${root}: ${key} does not have the SHA-256 ${sha256}`);
      // Leftovers that cannot be removed are in nobody's way.
      swept ??= sweep(join(root, INCOMING)).catch(() => undefined);
      await swept;
      await guarded("write", key, () => write(root, path, bytes));
    },
    async get(key) {
      const path = pathOf(key);
      return await guarded("read", key, async () => {
        const facts = await unlessAbsent(stat(path));
        if (facts === undefined || !facts.isFile()) return undefined;
        if (facts.size > OBJECT_BYTES_MAX) throw new Error(`it has ${facts.size} bytes, more than ${OBJECT_BYTES_MAX}`);
        return await unlessAbsent(readFile(path));
      });
    },
    async *list(prefix) {
      // The folders that the prefix names are opened, not searched for.
      const cut = prefix.lastIndexOf("/");
      if (cut > 0) checkKey(prefix.slice(0, cut));
      for await (const facts of walk(root, prefix.slice(0, cut + 1))) if (facts.key.startsWith(prefix)) yield facts;
    },
    async delete(key) {
      const path = pathOf(key);
      await guarded("delete", key, async () => {
        if ((await unlessAbsent(unlink(path).then(() => true))) === true) await syncFolder(dirname(path));
      });
    },
  };
}

async function guard<T>(root: string, what: string, key: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof ObjectStoreError) throw error;
    throw new ObjectStoreError(`archive folder ${root}: cannot ${what} ${key}: ${messageOf(error)}; ${helpFor(error)}`, { cause: error });
  }
}

/** Gives a new file its name once it is whole and on the disk. */
async function write(root: string, path: string, bytes: Uint8Array): Promise<void> {
  await makeFolder(join(root, INCOMING));
  const temporary = join(root, INCOMING, randomBytes(12).toString("hex"));
  try {
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await makeFolder(dirname(path));
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
}

async function* walk(root: string, folder: string): AsyncGenerator<ObjectFacts> {
  const entries: Dirent[] =
    (await guard(root, "list", folder, () => unlessAbsent(readdir(join(root, folder), { withFileTypes: true })))) ?? [];
  for (const entry of entries) {
    if (entry.name.startsWith(".")) continue;
    const key = `${folder}${entry.name}`;
    if (entry.isDirectory()) yield* walk(root, `${key}/`);
    else {
      const facts = await guard(root, "list", key, () => unlessAbsent(stat(join(root, key))));
      if (facts?.isFile() === true) yield { key, size: facts.size };
    }
  }
}

async function unlessAbsent<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
}

function helpFor(error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case "ENOSPC":
    case "EDQUOT":
      return "free some space or move RELOG_ARCHIVE";
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return "let the process write there or move RELOG_ARCHIVE";
    default:
      return "look at the disk that RELOG_ARCHIVE names";
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Makes a folder and those above it durably: each new entry is synced in its parent. */
async function makeFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true });
  if (first === undefined) return;
  for (let at = path; at.length >= first.length; at = dirname(at)) await syncFolder(dirname(at));
}

/** Removes what writers that were killed left long ago. */
async function sweep(folder: string): Promise<void> {
  for (const name of (await unlessAbsent(readdir(folder))) ?? []) {
    const path = join(folder, name);
    const facts = await unlessAbsent(stat(path));
    if (facts !== undefined && Date.now() - facts.mtimeMs > LEFTOVER_AGE_MS) await rm(path, { force: true });
  }
}

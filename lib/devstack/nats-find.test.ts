import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { debianMirror, findNatsServer, newEnough } from "./nats-find.ts";

const root = mkdtempSync(join(tmpdir(), "relog-find-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folder: string;
let count = 0;
beforeEach(() => {
  folder = join(root, String(count++));
});

/** A program that says it is nats-server of that version. */
function fake(path: string, version: string): string {
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, `#!/bin/sh\necho "nats-server: v${version}"\n`, { mode: 0o755 });
  return path;
}
const env = () => ({ PATH: join(folder, "bin"), RELOG_CACHE_DIR: join(folder, "cache") });
const never = [["nowhere", () => Promise.reject(new Error("no network"))]] as const;

test("the PATH comes before the cache", async () => {
  const onPath = fake(join(folder, "bin/nats-server"), "2.15.1");
  fake(join(folder, "cache/nats-server-2.15.1"), "2.15.1");
  expect(await findNatsServer(env(), undefined, never)).toBe(onPath);
});

test("one on the PATH that is too old is passed over for the cache", async () => {
  fake(join(folder, "bin/nats-server"), "2.9.10");
  const cached = fake(join(folder, "cache/nats-server-2.15.1"), "2.15.1");
  expect(await findNatsServer(env(), undefined, never)).toBe(cached);
});

test("NATS_SERVER wins, and one that does not do is an error, not a reason to look elsewhere", async () => {
  fake(join(folder, "bin/nats-server"), "2.15.1");
  const named = fake(join(folder, "other/nats"), "2.16.0");
  expect(await findNatsServer({ ...env(), NATS_SERVER: named }, undefined, never)).toBe(named);
  fake(named, "2.9.10");
  await expect(findNatsServer({ ...env(), NATS_SERVER: named }, undefined, never)).rejects.toThrow("2.9.10");
});

test("when every way fails, all are told with what to do", async () => {
  fake(join(folder, "bin/nats-server"), "2.9.10");
  await expect(findNatsServer(env(), undefined, never)).rejects.toThrow(
    /set NATS_SERVER[\s\S]*PATH: .*2\.9\.10[\s\S]*cache[\s\S]*nowhere: no network/,
  );
});

test("concurrent fetchers all get the whole binary, and leave nothing else behind", async () => {
  const said: string[] = [];
  const get = async (work: string): Promise<string> => fake(join(work, "nats-server"), "2.15.1");
  const fetchers = [["test", get]] as const;
  const found = await Promise.all(Array.from({ length: 6 }, () => findNatsServer(env(), (message) => said.push(message), fetchers)));
  expect(new Set(found)).toEqual(new Set([join(folder, "cache/nats-server-2.15.1")]));
  expect(readdirSync(join(folder, "cache"))).toEqual(["nats-server-2.15.1"]);
  expect(said[0]).toBe("fetching nats-server from test (once) ...");
  expect(await findNatsServer(env(), undefined, never)).toBe(found[0]);
});

test("an aborted fetch ends and leaves nothing behind", async () => {
  const abort = new AbortController();
  async function get(_work: string, signal?: AbortSignal): Promise<string> {
    abort.abort();
    signal?.throwIfAborted();
    return "never";
  }
  const finding = findNatsServer(env(), undefined, [["slow", get], ...never], abort.signal);
  await expect(finding).rejects.toThrow();
  expect(readdirSync(join(folder, "cache"))).toEqual([]);
});

test.each([
  ["2.15.1", true],
  ["2.9.10", false],
  ["2.16.0", true],
  ["3.0.0", true],
  ["2.15.0", false],
])("nats-server %s is new enough: %s", (version, ok) => {
  expect(newEnough(version)).toBe(ok);
});

test("the Debian mirror is the one that apt uses", () => {
  expect(debianMirror("http://deb.debian.org/debian-security/\nhttp://mirror.example/debian/\n")).toBe("http://mirror.example/debian/");
  expect(debianMirror("http://archive.ubuntu.com/ubuntu/\n")).toBeUndefined();
});

// The command line as people use it: processes, exit codes and signals; and how a command finds its engines.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Hono } from "hono";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openSite } from "../../cmd/relog/site.ts";
import { readSettings } from "../../lib/base/config.ts";
import { serveHttp } from "../../lib/base/http.ts";
import { waitFor } from "../../lib/base/loop.ts";
import { runCommands } from "../../lib/cli/command.ts";
import type { FakeIo } from "../../lib/cli/testing.ts";
import { fakeIo } from "../../lib/cli/testing.ts";
import { freePort } from "../../lib/devstack/ports.ts";
import { startService } from "../../lib/devstack/service.ts";
import type { Stack } from "../../lib/devstack/stack.ts";
import { startStack } from "../../lib/devstack/stack.ts";
import { children } from "../../lib/devstack/testing.ts";
import { connectNatsNow, natsSettings } from "../../lib/streams/connection.ts";
import { reconcile, topology, topologySettings } from "../../lib/streams/topology.ts";

let stack: Stack;
let env: Record<string, string>;
const dir = mkdtempSync(join(tmpdir(), "relog-cli-"));
const AT_ONCE_MS = 5_000;

beforeAll(async () => {
  stack = await startStack({ env: process.env });
  env = { ...stack.serviceEnv(), RELOG_SHARDS: "3", RELOG_DIR: dir };
  const settings = readSettings({ ...natsSettings, ...topologySettings }, env, String);
  const nc = await connectNatsNow(settings, "test");
  await reconcile(nc, topology(settings));
  await nc.close();
});
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true });
});

/** What a command says that only opens its site. */
async function opened(io: FakeIo, asksClickHouse = true): Promise<string> {
  const startMs = performance.now();
  async function run(): Promise<number> {
    await using site = await openSite(io, { asksClickHouse });
    io.out(`${site.values.site} ${site.values.shards} shards\n`);
    if (asksClickHouse) await site.clickhouse.read({ statement: "SELECT 1" });
    await site.nc.flush();
    return 0;
  }
  const code = await runCommands({ open: { summary: "", usage: "", run } }, ["open"], io);
  expect(performance.now() - startMs).toBeLessThan(AT_ONCE_MS);
  return `${code} ${io.stdout()}${io.stderr()}`;
}

test("a command takes its engines from the environment, and says nothing of it", async () => {
  expect(await opened(fakeIo(env))).toBe("0 main 3 shards\n");
});

test("the number of shards is that of the streams; another one that was set is refused", async () => {
  const { RELOG_SHARDS: _, ...rest } = env;
  expect(await opened(fakeIo(rest))).toBe("0 main 3 shards\n");
  expect(await opened(fakeIo({ ...env, RELOG_SHARDS: "2" }))).toBe(
    "1 relog open: RELOG_SHARDS is 2, but there are 3 LOGS streams; set it to 3\n",
  );
});

test("an engine that does not answer is named within seconds", async () => {
  const nowhere = `127.0.0.1:${await freePort()}`;
  expect(await opened(fakeIo({ ...env, NATS_URL: `nats://user:word@${nowhere}` }))).toMatch(
    new RegExp(`^1 relog open: stream_unavailable: NATS at nats://${nowhere} does not answer \\(.*\\)\\n`),
  );
  expect(await opened(fakeIo({ ...env, NATS_PASSWORD: "wrong" }))).toContain("refuses the user; check NATS_USER and NATS_PASSWORD");
  expect(await opened(fakeIo({ ...env, CLICKHOUSE_URL: `http://${nowhere}` }))).toMatch(
    new RegExp(`^1 relog open: store_unavailable: ClickHouse at http://${nowhere} does not answer\\n`),
  );
  expect(await opened(fakeIo({ ...env, CLICKHOUSE_URL: `http://${nowhere}` }), false)).toBe("0 main 3 shards\n");
  expect(await opened(fakeIo({ ...env, CLICKHOUSE_PASSWORD: "wrong" }))).toMatch(/^1 relog open: store_misconfigured: /);
});

test("every fault of the settings is named", async () => {
  const said = await opened(fakeIo({ RELOG_SHARDS: "many", RELOG_DIR: dir }));
  expect(said).toMatch(
    /^1 relog open: the configuration has 2 fault\(s\):\n {2}RELOG_SHARDS \(streams\): .*\n {2}CLICKHOUSE_URL is not set/,
  );
  expect(said).toContain("No stack of `npm start` runs here either (RELOG_DIR names its folder).");
});

test("the running stack of a folder is used, and that is said; one that has ended is not", async () => {
  const clickhouse = { url: stack.clickhouse!.url, user: "relog", password: stack.clickhouse!.password };
  const gateway = await serveHttp(
    new Hono().get("/healthz", (c) => c.json({})),
    "127.0.0.1",
    0,
    "none",
  );
  const ingestUrl = `http://127.0.0.1:${gateway.port}`;
  writeFileSync(join(dir, "dev.json"), JSON.stringify({ ingestUrl, natsUrl: stack.natsUrl, tenant: "default", key: "k", clickhouse }));
  const secrets = { natsPassword: stack.natsPassword, clickhousePassword: clickhouse.password };
  writeFileSync(join(dir, "secrets.json"), JSON.stringify(secrets));
  expect(await opened(fakeIo({ RELOG_DIR: dir }))).toBe(`0 main 3 shards\nusing the stack in ${dir}\n`);
  expect(await opened(fakeIo({ RELOG_DIR: dir, CLICKHOUSE_URL: "http://127.0.0.1:1" }))).not.toContain("using the stack");
  await gateway[Symbol.asyncDispose]();
  expect(await opened(fakeIo({ RELOG_DIR: dir }))).toContain("CLICKHOUSE_URL is not set");
});

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The bootstrap beside packages that are up to date: it installs nothing in the repository that this test runs in. */
const bootstrap = join(dir, "cmd", "bootstrap.mjs");
mkdirSync(join(dir, "cmd"));
mkdirSync(join(dir, "node_modules"));
copyFileSync("cmd/bootstrap.mjs", bootstrap);
writeFileSync(join(dir, "package-lock.json"), "{}");
writeFileSync(join(dir, "node_modules", ".relog-lock-sha256"), createHash("sha256").update("{}").digest("hex"));

/** `relog ...` as npm runs it, in a process group of its own as in a terminal. */
function relog(args: readonly string[], more: Record<string, string> = {}): { pid: number; ended: Promise<Ended> } {
  const all = { PATH: process.env.PATH ?? "", HOME: dir, ...more };
  const child = spawn(process.execPath, [bootstrap, resolve("cmd/relog.ts"), ...args], { env: all, detached: true });
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].on("data", (data) => {
      said[name] += String(data);
    });
  }
  return { pid: child.pid!, ended: new Promise((done) => child.once("close", (code) => done({ code, ...said }))) };
}

test("exit codes and both outputs pass through the bootstrap", async () => {
  expect(await relog(["help"]).ended).toMatchObject({ code: 0, stdout: expect.stringContaining("check-config"), stderr: "" });
  expect(await relog(["chekc-config"]).ended).toEqual({
    code: 2,
    stdout: "",
    stderr: 'relog: there is no command "chekc-config". Did you mean check-config?\n',
  });
});

test("what Node compiled is kept beside the packages, or where the environment says", async () => {
  const [kept, other] = [join(dir, "node_modules", ".cache", "node-compile"), join(dir, "other-cache")];
  await relog(["version"]).ended;
  expect(readdirSync(kept)).toHaveLength(1);
  await relog(["version"], { NODE_COMPILE_CACHE: other }).ended;
  expect(readdirSync(other)).toEqual(readdirSync(kept));
});

test("check-config is what the services say themselves", async () => {
  const good = { RELOG_KEY: "k", CLICKHOUSE_URL: "http://127.0.0.1:8123" };
  const all = ["projector", "scheduler", "query", "gateway"];
  expect(await relog(["check-config"], good).ended).toEqual({ code: 0, stdout: all.map((name) => `${name}: ok\n`).join(""), stderr: "" });
  const bad = { ...good, RELOG_APPEND_TIMEOUT: "1h", RELOG_TENANT: "A" };
  for (const [service, message] of [
    ["gateway", /2 fault.*RELOG_DEDUPE.*RELOG_TENANT/s],
    ["scheduler", /1 fault.*RELOG_APPEND_TIMEOUT.*RELOG_DEDUPE/s],
  ] as const) {
    const { code, stdout } = await relog(["check-config", "--service", service, "--json"], bad).ended;
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ service, ok: false, message: expect.stringMatching(message) });
  }
});

/** The process of cmd/relog.ts, when it works. */
async function working(pid: number): Promise<number> {
  return await waitFor("the command at work", () => [...children(pid).keys()].find((child) => children(child).size > 0));
}

test("Ctrl-C reaches the command once, though the bootstrap passes it on too", async () => {
  const run = relog(["check-config"]);
  await working(run.pid);
  process.kill(-run.pid, "SIGINT");
  const { code, stderr } = await run.ended;
  expect(code).toBe(130);
  expect(stderr).toBe("relog: stopping; once more ends it at once\nrelog check-config: stopped\n");
});

test("SIGTERM to the bootstrap stops the command", async () => {
  const run = relog(["check-config"]);
  await working(run.pid);
  process.kill(run.pid, "SIGTERM");
  expect((await run.ended).code).toBe(130);
});

test("the scheduler starts, answers operators, and leaves", async () => {
  await using service = await startService("scheduler", stack, { RELOG_SHARDS: "3" });
  const jobs = (key: string) => fetch(`${service.url}/v1/jobs`, { headers: { "x-api-key": key } });
  expect((await jobs("wrong")).status).toBe(401);
  expect(await (await jobs(env.RELOG_KEY!)).json()).toEqual({ jobs: expect.any(Array) });
  expect((await fetch(`${service.url}/metrics`)).status).toBe(200);
  expect(await service.child.stop()).toEqual({ code: 0, signal: null });
});

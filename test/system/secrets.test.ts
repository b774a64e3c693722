// Where secrets are not: in no log, no table, no open endpoint, no argument and no environment of the stack of `npm start`,
// after traffic, made keys and failed logins. Where they are on purpose: in files of mode 0600, and in the welcome of `npm start`.

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { newKey } from "../../lib/accounts/keys.ts";
import { harmless } from "../../lib/base/harmless.ts";
import { waitFor } from "../../lib/base/loop.ts";
import type { Secrets } from "../../lib/devstack/folder.ts";
import type { Contract } from "../../lib/devstack/steps.ts";
import type { Run } from "../../lib/devstack/testing.ts";
import { children, devPorts, runDev, untilReady } from "../../lib/devstack/testing.ts";

const dir = mkdtempSync(join(tmpdir(), "relog-secrets-"));
const FORGED = '\n{"level":"fatal","message":"forged"}\n[1] 2026/01/01 00:00:00 [FTL] forged \u001b[2J\u009b';
/** Larger files are the engines' stores. */
const FILE_BYTES_MAX = 32 * 2 ** 20;
let ports: Record<string, string>;
let dev: Run;
let contract: Contract;
/** Name -> secret. */
const secrets = new Map<string, string>();

async function call(url: string, line: string, key: string, body?: string | object): Promise<{ status: number; text: string }> {
  const [method = "", path = ""] = line.split(" ");
  const headers = { authorization: `Bearer ${key}` };
  const given = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
  const answer = await fetch(`${url}${path}`, { method, headers, ...given });
  return { status: answer.status, text: await answer.text() };
}

async function make(name: string, body: object = { scopes: ["ingest", "query"] }): Promise<{ id: string; key: string }> {
  const { status, text } = await call(contract.queryUrl, "POST /v1/tenants/hidden/keys", contract.key, body);
  expect([status, text]).toEqual([201, expect.stringContaining('"key":"relog_')]);
  const made = JSON.parse(text) as { id: string; key: string };
  secrets.set(name, made.key);
  secrets.set(`${name}, its secret part`, made.key.split("_")[2]!);
  return made;
}

/** Tries what fails with a key, everywhere that takes one, and where none belongs. */
async function misuse(key: string, asUser = true): Promise<void> {
  const { ingestUrl, queryUrl, natsUrl } = contract;
  for (const [url, line] of [
    [ingestUrl, "POST /v1/ingest"],
    [queryUrl, "POST /v1/query"],
    [queryUrl, "GET /v1/tenants"],
    [`http://127.0.0.1:${ports.RELOG_SCHEDULER_PORT}`, "GET /v1/jobs"],
    [queryUrl, `GET /v1/${key}`],
    [queryUrl, `GET /v1/whoami?key=${key}`],
    [queryUrl, `GET /v1/receipts/${key}`],
    [ingestUrl, `POST /v1/ingest?key=${key}`],
  ] as const)
    expect((await call(url, line, key, line.startsWith("POST") ? "{" : undefined)).status).toBeGreaterThanOrEqual(400);
  // nats-server logs the user that it refuses: `npm start` takes keys out, and cannot know other words.
  for (const options of [
    { token: key },
    { user: asUser ? key : "anyone", pass: key },
    { user: "relog", pass: key },
    { user: "relog_system", pass: key },
  ])
    await expect(connect({ servers: natsUrl, reconnect: false, name: FORGED, ...options })).rejects.toMatchObject({
      code: "AUTHORIZATION_VIOLATION",
    });
}

beforeAll(async () => {
  ports = await devPorts();
  dev = runDev(process.env, { RELOG_DIR: dir, ...ports });
  contract = await untilReady(dev, dir);
  const kept = JSON.parse(readFileSync(join(dir, "secrets.json"), "utf8")) as Secrets;
  for (const [name, value] of Object.entries(kept)) secrets.set(name, value);
  expect(secrets.size).toBe(6);
  expect((await call(contract.queryUrl, "POST /v1/tenants", contract.key, { tenant: "hidden" })).status).toBe(201);
  const [good, ended] = [await make("a key"), await make("a revoked key")];
  const rotated = await call(contract.queryUrl, `POST /v1/tenants/hidden/keys/${ended.id}/rotate`, contract.key, {});
  secrets.set("a rotated key", (JSON.parse(rotated.text) as { key: string }).key);
  await call(contract.queryUrl, `DELETE /v1/tenants/hidden/keys/${ended.id}`, contract.key);
  const known = async () => (await call(contract.ingestUrl, "POST /v1/ingest", good.key, '{"message":"hidden"}')).status;
  await waitFor("the key to be known", async () => ((await known()) === 200 ? true : undefined));
  const over = await connect({ servers: contract.natsUrl, token: good.key, inboxPrefix: "_INBOX_hidden", name: FORGED });
  await over.request("ingest.hidden", '{"message":"hidden"}', { timeout: 10_000 });
  // nats-server logs what a connection must not do, with the name that it gave itself.
  over.publish("anywhere", "");
  await over.flush();
  await over.close();
  await waitFor("the revocation", async () =>
    (await call(contract.ingestUrl, "POST /v1/ingest", ended.key, "{}")).status === 401 ? true : undefined,
  );
  const wrong = `${good.key.slice(0, -2)}${good.key.at(-2) === "a" ? "b" : "a"}${good.key.at(-1)}`;
  secrets.set("nearly a key", wrong);
  for (const key of [wrong, ended.key, newKey().key]) await misuse(key);
  // The engines' passwords in the wrong place.
  for (const word of [kept.clickhousePassword, kept.readerPassword, kept.natsCalloutSeed]) await misuse(word, false);
  const { url, user } = contract.clickhouse;
  for (const word of [kept.readerPassword, kept.natsPassword, good.key])
    expect((await fetch(`${url}/?query=SELECT+1`, { headers: { "x-clickhouse-user": user, "x-clickhouse-key": word } })).status).toBe(403);
  // Engines that go away make every process complain.
  for (const command of ["clickhouse-child", "nats-server"]) {
    const [pid] = [...children(dev.process.pid!)].find(([, line]) => line.includes(command))!;
    process.kill(pid, "SIGKILL");
  }
  await waitFor("both to be started again", () => (dev.output.split("died (SIGKILL); restarting in").length > 2 ? true : undefined));
  for (const name of ["GATEWAY", "QUERY", "PROJECTOR", "SCHEDULER"])
    await waitFor(`${name} to be ready`, () =>
      fetch(`http://127.0.0.1:${ports[`RELOG_${name}_PORT`]}/readyz`).then(
        ({ ok }) => ok || undefined,
        () => undefined,
      ),
    );
}, 120_000);
afterAll(async () => {
  dev?.process.kill("SIGKILL");
  await dev?.ended;
  rmSync(dir, { recursive: true, force: true });
});

const found = (text: string, besides: readonly string[] = []): string[] =>
  [...secrets].filter(([name, secret]) => !besides.includes(name) && text.includes(secret)).map(([name]) => name);

function files(): { path: string; text: string; mode: number }[] {
  const names = readdirSync(dir, { recursive: true, encoding: "utf8" });
  return names.flatMap((name) => {
    const path = join(dir, name);
    try {
      const { mode, size } = statSync(path);
      return size <= FILE_BYTES_MAX && statSync(path).isFile()
        ? [{ path: name, text: readFileSync(path, "latin1"), mode: mode & 0o777 }]
        : [];
    } catch {
      // It was a temporary file of an engine.
      return [];
    }
  });
}

test("no log of any process holds a secret, and what was said to them begins no line", () => {
  const logs = files().filter(({ path }) => path.startsWith("logs/"));
  expect(logs.map(({ path }) => path)).toEqual(
    expect.arrayContaining(["logs/gateway.log", "logs/nats.log", "logs/clickhouse.log", "logs/query.log"]),
  );
  expect(logs.find(({ path }) => path === "logs/nats.log")!.text).toMatch(/forged .*Publish Violation/);
  for (const { path, text } of logs) {
    expect([path, found(text)]).toEqual([path, []]);
    expect([path, text.split("\n").filter((line) => /^(\{"level":"fatal","message":"forged|\[1\] 2026)/.test(line))]).toEqual([path, []]);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect([path, text.split("\n").filter((line) => /[\u0000-\u0008\u000b-\u001f]/.test(line))]).toEqual([path, []]);
  }
});

test("the table of own logs holds none", async () => {
  const sql = "SELECT * FROM logs WHERE service = 'relog' ORDER BY timestamp";
  const asked = async () => (await call(contract.queryUrl, "POST /v1/query", contract.key, sql)).text;
  const text = await waitFor("what the gateway and NATS said", async () => {
    const said = await asked();
    return said.includes("a connection to NATS was refused") && said.includes("authentication error") ? said : undefined;
  });
  expect(found(text)).toEqual([]);
});

test("no open endpoint of a process or an engine holds one", async () => {
  const monitor = /http: "([^"]+)"/.exec(files().find(({ path }) => path.endsWith("nats.conf"))!.text)![1];
  const urls = [
    ...["GATEWAY", "QUERY", "PROJECTOR", "SCHEDULER"].flatMap((name) =>
      ["/healthz", "/readyz", "/metrics"].map((path) => `http://127.0.0.1:${ports[`RELOG_${name}_PORT`]}${path}`),
    ),
    `${contract.queryUrl}/openapi.json`,
    `${contract.queryUrl}/docs`,
    ...["varz", "connz?auth=1&subs=1&state=all", "accountz?acc=RELOG", "accountz?acc=PRODUCERS", "subsz?subs=1", "jsz?config=1"].map(
      (path) => `http://${monitor}/${path}`,
    ),
  ];
  for (const url of urls) expect([url, found(await (await fetch(url)).text())]).toEqual([url, []]);
});

test("no argument holds one, and an environment only what its process needs", () => {
  const NEEDS: Readonly<Record<string, readonly string[]>> = {
    "nats-server": ["natsPassword", "natsSystemPassword"],
    "clickhouse-child": [],
    "cmd/gateway.ts": ["key", "natsPassword", "natsSystemPassword", "natsCalloutSeed"],
    "cmd/query.ts": ["key", "natsPassword", "clickhousePassword", "readerPassword"],
    "cmd/projector.ts": ["natsPassword", "clickhousePassword"],
    "cmd/scheduler.ts": ["key", "natsPassword", "clickhousePassword"],
  };
  const running = children(dev.process.pid!);
  for (const [command, needs] of Object.entries(NEEDS)) {
    const [pid, line] = [...running].find(([, one]) => one.includes(command))!;
    expect([command, found(line)]).toEqual([command, []]);
    expect([command, found(readFileSync(`/proc/${pid}/environ`, "latin1"), needs)]).toEqual([command, []]);
    expect(statSync(`/proc/${pid}/environ`).mode & 0o077).toBe(0);
  }
  expect(found(readFileSync(`/proc/${dev.process.pid}/cmdline`, "latin1"))).toEqual([]);
});

test("a file that holds one is its owner's alone, and there are two", () => {
  const holding = files().filter(({ text }) => found(text).length > 0);
  expect(holding.map(({ path, mode }) => `${path} ${mode.toString(8)}`).sort()).toEqual(["dev.json 600", "secrets.json 600"]);
  expect(statSync(dir).mode & 0o077).toBe(0);
});

test("`npm start` prints the key of the installation, as it must, and no other secret", () => {
  expect(found(dev.output)).toEqual(["key"]);
  expect(dev.output).toBe(harmless(dev.output));
});

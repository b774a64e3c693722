// `npm start` as people use it: one run of cmd/dev.ts in a folder of its own, looked at from outside. The tests go in order.

import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { connect } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { OwnLogs } from "../../lib/devstack/own-logs.ts";
import { freePort } from "../../lib/devstack/ports.ts";
import { startStack } from "../../lib/devstack/stack.ts";
import type { Contract } from "../../lib/devstack/steps.ts";
import { firstCommands } from "../../lib/devstack/steps.ts";
import type { Run } from "../../lib/devstack/testing.ts";
import { children, devPorts, runDev, untilReady } from "../../lib/devstack/testing.ts";

const dir = mkdtempSync(join(tmpdir(), "relog-dev-"));
let ports: Record<string, string>;
const run = (env: Record<string, string> = {}): Run => runDev(process.env, { RELOG_DIR: dir, ...ports, ...env });

let dev: Run;
let contract: Contract;

async function query<T>(sql: string): Promise<T[]> {
  const headers = { authorization: `Bearer ${contract.key}`, "content-type": "text/plain" };
  const answer = await fetch(`${contract.queryUrl}/v1/query`, { method: "POST", headers, body: sql });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
}

beforeAll(async () => {
  ports = await devPorts();
  dev = run();
  contract = await untilReady(dev, dir);
});
afterAll(async () => {
  dev.process.kill("SIGTERM");
  await dev.ended;
  rmSync(dir, { recursive: true, force: true });
});

test("dev.json follows the contract and is the owner's alone", () => {
  expect(contract).toEqual({
    ingestUrl: `http://127.0.0.1:${ports.RELOG_GATEWAY_PORT}`,
    queryUrl: `http://127.0.0.1:${ports.RELOG_QUERY_PORT}`,
    natsUrl: `nats://127.0.0.1:${ports.RELOG_NATS_PORT}`,
    tenant: "default",
    key: expect.stringMatching(/^relog_dev_[0-9a-f]{32}$/),
    clickhouse: { url: `http://127.0.0.1:${ports.RELOG_CLICKHOUSE_HTTP_PORT}`, user: "relog", password: expect.any(String) },
  });
  expect(statSync(join(dir, "dev.json")).mode & 0o777).toBe(0o600);
});

test("the three printed commands work, one after the other", async () => {
  const [send, ask, receipt] = firstCommands(contract);
  await waitFor("the welcome", () => (dev.output.includes(receipt) ? true : undefined));
  for (const command of [send, ask, receipt]) expect(dev.output).toContain(command);
  const shell = async (command: string): Promise<string> => (await promisify(execFile)("sh", ["-c", command])).stdout.trim();
  const id = await shell(send);
  expect(id).toMatch(/^[0-9A-Z]{26}$/);
  const answer = await waitFor("the line", async () => (await shell(ask)) || undefined);
  expect(JSON.parse(answer)).toMatchObject({ level: "info", message: "hello" });
  expect(JSON.parse(await shell(`id=${id}; ${receipt}`))).toMatchObject({ id, stored: true, accepted: 1 });
});

test("the logs of every process are found by the query service, from the first step on", async () => {
  const sql = "SELECT attributes['component'] AS component, message, level FROM logs WHERE service = 'relog'";
  const rows = await waitFor("five components", async () => {
    const found = await query<{ component: string; message: string; level: string }>(sql);
    const components = new Set(found.map((row) => row.component));
    return ["dev", "nats", "projector", "query"].every((name) => components.has(name)) ? found : undefined;
  });
  const messages = rows.map((row) => `${row.component}: ${row.message}`);
  expect(messages).toContain("dev: nats-server ...");
  expect(messages).toContain("nats: Server is ready");
  expect(messages).toContain("query: query service is listening");
  await using logs = new OwnLogs(contract.ingestUrl, contract.key);
  logs.add("gateway", '{"level":"error","component":"gateway","message":"request failed","err":{"type":"TypeError","stack":"at x"}}');
  await logs.flush();
  const failed =
    "SELECT level, attributes['err.type'] AS type, attributes['err.stack'] AS stack FROM logs WHERE message = 'request failed'";
  const [error] = await waitFor("the error", async () => ((await query(failed)).length > 0 ? await query(failed) : undefined));
  expect(error).toEqual({ level: "error", type: "TypeError", stack: "at x" });
  for (const name of ["dev", "nats", "clickhouse", "projector", "query", "gateway"])
    expect(existsSync(join(dir, "logs", `${name}.log`))).toBe(true);
});

test("an ingest and its projection make no log line, so shipping does not feed itself", async () => {
  const size = () => readdirSync(join(dir, "logs")).reduce((sum, name) => sum + statSync(join(dir, "logs", name)).size, 0);
  const headers = { authorization: `Bearer ${contract.key}` };
  async function send(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const answer = await fetch(`${contract.ingestUrl}/v1/ingest`, { method: "POST", headers, body: '{"service":"loop","message":"x"}' });
      expect(answer.status).toBe(200);
    }
    await waitFor("the projection", async () => {
      const [row] = await query<{ n: number }>("SELECT count() AS n FROM logs WHERE service = 'loop'");
      return Number(row!.n) >= count ? true : undefined;
    });
  }
  await send(1);
  const before = size();
  await send(30);
  expect(size() - before).toBeLessThan(1_000);
});

test("a NATS client with the key can hand in logs, and nothing else; without it nothing at all", async () => {
  await expect(connect({ servers: contract.natsUrl, reconnect: false })).rejects.toMatchObject({ code: "AUTHORIZATION_VIOLATION" });
  const nc = await connect({ servers: contract.natsUrl, token: contract.key, timeout: 5_000 });
  const errors: string[] = [];
  void (async () => {
    for await (const status of nc.status()) errors.push(JSON.stringify(status));
  })();
  const line = JSON.stringify({ service: "producer", message: "over NATS" });
  expect(await nc.jetstream().publish("ingest.default", line)).toMatchObject({
    stream: expect.stringMatching(/^LOGS_\d$/),
    duplicate: false,
  });
  const receipt = (await nc.request("ingest.default", line, { timeout: 5_000 })).json<{ id: string; accepted: number }>();
  expect(receipt).toMatchObject({ id: expect.stringMatching(/^[0-9A-Z]{26}$/), accepted: 1 });
  await waitFor("both lines", async () => ((await query("SELECT 1 FROM logs WHERE service = 'producer'")).length === 2 ? true : undefined));

  for (const subject of ["_INBOX_RELOG.>", "logs.>", "$JS.API.>", "$KV.>", ">"]) {
    const refused = nc.subscribe(subject);
    await expect(
      (async () => {
        for await (const message of refused) throw new Error(`heard ${message.subject}`);
      })(),
    ).rejects.toMatchObject({ code: "PERMISSIONS_VIOLATION" });
  }
  for (const subject of ["logs.0.default", "control.x", "$JS.API.STREAM.DELETE.LOGS_0", "$JS.API.STREAM.INFO.LOGS_0", "_INBOX_RELOG.x"]) {
    await expect(nc.request(subject, "", { timeout: 2_000 }), subject).rejects.toMatchObject({ code: "PERMISSIONS_VIOLATION" });
  }
  await nc.close();
});

test("a second start on the folder is refused and names the owner", async () => {
  const second = run();
  expect(await second.ended).toBe(1);
  expect(second.output).toContain(`${dir} is in use by pid ${dev.process.pid}`);
  expect(existsSync(join(dir, "dev.json"))).toBe(true);
});

test("a taken port is named with its setting and its holder, before anything starts", async () => {
  const server = createServer();
  const port = await freePort();
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  const other = mkdtempSync(join(tmpdir(), "relog-dev-"));
  const refused = run({ RELOG_DIR: other, RELOG_QUERY_PORT: String(port) });
  expect(await refused.ended).toBe(1);
  expect(refused.output).toMatch(new RegExp(`port ${port} is taken by pid ${process.pid} .*move it with RELOG_QUERY_PORT`));
  expect(refused.output).not.toContain("nats-server ...");
  await new Promise((done) => server.close(done));
  rmSync(other, { recursive: true });
});

test("a wrong setting is named", async () => {
  const refused = run({ RELOG_DIR: join(dir, "no"), RELOG_QUERY_PORT: "eighty" });
  expect(await refused.ended).toBe(1);
  expect(refused.output).toContain("RELOG_QUERY_PORT (port)");
});

test("engines that are given are used and not started, and a setting may stand in a file", async () => {
  await using engines = await startStack({ env: process.env });
  const other = mkdtempSync(join(tmpdir(), "relog-dev-"));
  writeFileSync(join(other, "key"), "key-from-a-file\n");
  const free = await devPorts();
  const { RELOG_KEY: _key, ...given } = engines.serviceEnv();
  const settings = {
    ...given,
    RELOG_DIR: other,
    RELOG_KEY: `file:${join(other, "key")}`,
    RELOG_CLICKHOUSE_HTTP_PORT: "1",
    RELOG_NATS_PORT: "1",
  };
  const second = run({ ...free, ...settings });
  const seen = await untilReady(second, other);
  expect(seen).toMatchObject({
    natsUrl: engines.natsUrl,
    key: "key-from-a-file",
    clickhouse: { url: engines.clickhouse!.url, user: "relog" },
  });
  const commands = [...children(second.process.pid!).values()];
  expect(commands.filter((line) => line.includes("nats-server") || line.includes("clickhouse-child"))).toEqual([]);
  const answer = await fetch(`${seen.ingestUrl}/v1/ingest`, {
    method: "POST",
    headers: { "x-api-key": seen.key },
    body: '{"message":"x"}',
  });
  expect(answer.status).toBe(200);
  second.process.kill("SIGINT");
  expect(await second.ended).toBe(0);
  rmSync(other, { recursive: true });
});

test("a stop in the middle of the start leaves nothing", async () => {
  const other = mkdtempSync(join(tmpdir(), "relog-dev-"));
  const free = await devPorts();
  const second = run({ ...free, RELOG_DIR: other });
  await waitFor("a first service", () => (second.output.includes("gateway ...") ? true : undefined));
  const left = children(second.process.pid!);
  second.process.kill("SIGTERM");
  expect(await second.ended).toBe(0);
  expect(
    [...left.keys()].filter((pid) => existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`, "utf8") !== ""),
  ).toEqual([]);
  expect(existsSync(join(other, "lock"))).toBe(false);
  rmSync(other, { recursive: true });
});

test.each([
  "nats-server",
  "clickhouse-child",
  "cmd/gateway.ts",
  "cmd/projector.ts",
  "cmd/scheduler.ts",
])("after kill -9 of %s it is started again, and said so", async (command) => {
  const find = () => [...children(dev.process.pid!)].find(([, line]) => line.includes(command))?.[0];
  const victim = await waitFor(command, find);
  const said = () => dev.output.split("died (SIGKILL); restarting in").length;
  const before = said();
  process.kill(victim, "SIGKILL");
  await waitFor("another process", () => (find() ?? victim) !== victim || undefined);
  await waitFor("the line that says so", () => said() > before || undefined);
  await waitFor("ready services", async () => {
    const urls = [
      contract.ingestUrl,
      contract.queryUrl,
      ...["PROJECTOR", "SCHEDULER"].map((name) => `http://127.0.0.1:${ports[`RELOG_${name}_PORT`]}`),
    ];
    const ready = await Promise.all(
      urls.map((url) =>
        fetch(`${url}/readyz`).then(
          (answer) => answer.ok,
          () => false,
        ),
      ),
    );
    return ready.every((one) => one) || undefined;
  });
});

test("SIGTERM stops in reverse order, and the next start finds the data", async () => {
  const [before] = await query<{ n: number }>("SELECT count() AS n FROM logs WHERE service = 'loop'");
  dev.process.kill("SIGTERM");
  expect(await dev.ended).toBe(0);
  const stopped = [...dev.output.matchAll(/stopped (\S+)/g)].map((match) => match[1]);
  expect(stopped.slice(0, 4)).toEqual(["gateway", "query", "scheduler", "projector"]);
  expect(stopped.slice(4).sort()).toEqual(["clickhouse", "nats-1"]);
  expect(existsSync(join(dir, "dev.json"))).toBe(false);
  dev = run();
  const key = contract.key;
  contract = await untilReady(dev, dir);
  expect(contract.key).toBe(key);
  expect(await query("SELECT count() AS n FROM logs WHERE service = 'loop'")).toEqual([before]);
});

test("after kill -9 nothing keeps running", async () => {
  const left = children(dev.process.pid!);
  expect(left.size).toBeGreaterThanOrEqual(5);
  dev.process.kill("SIGKILL");
  await dev.ended;
  const end = performance.now();
  await waitFor("the children's end", () => ([...left.keys()].every((pid) => !existsSync(`/proc/${pid}`)) ? true : undefined));
  expect(performance.now() - end).toBeLessThan(5_000);
});

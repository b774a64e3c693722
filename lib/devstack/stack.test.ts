import { mkdirSync, mkdtempSync, readdirSync, renameSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readSettings } from "../base/config.ts";
import { Health } from "../base/health.ts";
import { waitFor } from "../base/loop.ts";
import { createTelemetry } from "../base/telemetry.ts";
import type { NatsConnection } from "../streams/connection.ts";
import { connectNats, natsSettings } from "../streams/connection.ts";
import { reconcile, topology, topologySettings } from "../streams/topology.ts";
import { startService } from "./service.ts";
import { startStack } from "./stack.ts";

test("a reader sees the rows of the tenant in log_comment and no others", async () => {
  await using stack = await startStack({ env: process.env });
  const clickhouse = stack.clickhouse!;
  const ask = async (user: string, password: string, sql: string, settings = ""): Promise<[number, string]> => {
    const headers = { "X-ClickHouse-User": user, "X-ClickHouse-Key": password };
    const answer = await fetch(`${clickhouse.url}/?${settings}`, { method: "POST", headers, body: sql });
    return [answer.status, (await answer.text()).trim()];
  };
  const owner = (sql: string) => ask("relog", clickhouse.password, sql);
  const reader = (sql: string, settings = "") => ask("reader", clickhouse.readerPassword, sql, settings);
  await owner("CREATE DATABASE relog_g1");
  await owner("CREATE TABLE relog_g1.logs (tenant String) ENGINE = MergeTree ORDER BY tenant");
  await owner("INSERT INTO relog_g1.logs VALUES ('a'), ('a'), ('b')");
  const count = "SELECT count() FROM relog_g1.logs";
  expect(await owner(count)).toEqual([200, "3"]);
  expect(await reader(count)).toEqual([200, "0"]);
  expect(await reader(count, "log_comment=a")).toEqual([200, "2"]);
  for (const settings of [
    "max_execution_time=61",
    "max_execution_time=0",
    "max_memory_usage=0",
    "max_rows_to_read=0",
    "max_block_size=1",
    "readonly=0",
  ]) {
    expect((await reader("SELECT 1", settings))[0], settings).not.toBe(200);
  }
  expect((await reader("SELECT * FROM system.users"))[0]).not.toBe(200);
  expect(await reader("SELECT 1", "max_threads=2&max_result_rows=10&max_execution_time=5")).toEqual([200, "1"]);
  // One of the server's settings in ops/clickhouse/config.d/relog.xml, which a query of its own cannot be seen to obey.
  expect(await owner("SELECT value FROM system.server_settings WHERE name = 'max_parts_cleaning_thread_pool_size'")).toEqual([200, "2"]);
  // The engine's own session has the user `default`, which has no password, to itself.
  for (const settings of ["", "session_id=x", "replace_running_query=1&query_id=x", "max_sessions_for_user=0"]) {
    expect((await ask("default", "", "SELECT 1", settings))[1], settings).toContain("USER_SESSION_LIMIT_EXCEEDED");
  }
});

test("the streams of a folder whose services were in the server's own account go with them", async () => {
  const dir = mkdtempSync(join(tmpdir(), "relog-stack-"));
  await using _gone = { [Symbol.asyncDispose]: () => rm(dir, { recursive: true }) };
  const during = async (work: (nc: NatsConnection) => Promise<void>): Promise<void> => {
    await using stack = await startStack({ env: process.env, clickhouse: false, dir });
    const settings = readSettings(natsSettings, stack.serviceEnv(), () => "");
    const nc = await connectNats(settings, "test", createTelemetry("test", "silent", false).log, new Health());
    await using _close = { [Symbol.asyncDispose]: () => nc.close() };
    await work(nc);
  };
  await during(async (nc) => {
    await (await nc.jetstreamManager()).streams.add({ name: "KEPT", subjects: ["kept"] });
    await nc.jetstream().publish("kept", "a line");
  });
  const accounts = join(dir, "nats", "n1", "jetstream", "jetstream");
  renameSync(join(accounts, "RELOG"), join(accounts, "$G"));
  await during(async (nc) => {
    const { data } = await (await nc.jetstreamManager()).streams.getMessage("KEPT", { seq: 1 });
    expect(Buffer.from(data).toString()).toBe("a line");
  });
  expect(readdirSync(accounts).sort()).toEqual(["RELOG"]);
  // An earlier version was started on it in between.
  mkdirSync(join(accounts, "$G"));
  await expect(startStack({ env: process.env, clickhouse: false, dir })).rejects.toThrow(/RELOG both hold streams; move one/);
});

test("three nodes form a cluster, a killed one comes back on its port, and streams have a replica in each zone", async () => {
  await using stack = await startStack({ env: process.env, natsNodes: 3, clickhouse: false });
  stack.nats[0]!.kill("SIGKILL");
  expect((await stack.nats[0]!.exited).signal).toBe("SIGKILL");
  stack.nats[0]!.start();
  await stack.ready();
  const settings = readSettings({ ...natsSettings, ...topologySettings }, stack.serviceEnv(), () => "");
  expect(settings.replicas).toBe(3);
  const nc = await connectNats(settings, "test", createTelemetry("test", "silent", false).log, new Health());
  await using _close = { [Symbol.asyncDispose]: () => nc.close() };
  expect((await reconcile(nc, topology(settings))).created).toContain("LOGS_0");
  const manager = await nc.jetstreamManager();
  await waitFor("three replicas that are up to date", async () => {
    const { cluster, config } = await manager.streams.info("LOGS_0");
    expect(config.num_replicas).toBe(3);
    const names = [cluster?.leader, ...(cluster?.replicas ?? []).map(({ name }) => name)];
    expect(new Set(names)).toEqual(new Set(["n1", "n2", "n3"]));
    return cluster?.replicas?.every(({ current }) => current) ? true : undefined;
  });
});

test("a service that was killed starts again on its port", async () => {
  await using stack = await startStack({ env: process.env, clickhouse: false });
  await using gateway = await startService("gateway", stack);
  const first = gateway.pid;
  gateway.kill("SIGKILL");
  expect((await gateway.child.exited).signal).toBe("SIGKILL");
  await expect(fetch(`${gateway.url}/healthz`)).rejects.toThrow();
  await gateway.restart();
  expect(gateway.pid).not.toBe(first);
  expect((await fetch(`${gateway.url}/readyz`)).status).toBe(200);
});

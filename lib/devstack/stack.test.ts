import { expect, test } from "vitest";
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
  for (const settings of ["max_execution_time=61", "max_execution_time=0", "max_threads=64", "readonly=0"]) {
    expect((await reader("SELECT 1", settings))[0], settings).not.toBe(200);
  }
  expect((await reader("SELECT * FROM system.users"))[0]).not.toBe(200);
});

test("three nodes form a cluster, and a killed one comes back on its port", async () => {
  await using stack = await startStack({ env: process.env, natsNodes: 3, clickhouse: false });
  stack.nats[0]!.kill("SIGKILL");
  expect((await stack.nats[0]!.exited).signal).toBe("SIGKILL");
  stack.nats[0]!.start();
  await stack.ready();
});

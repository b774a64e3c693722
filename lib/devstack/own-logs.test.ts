import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { LogFile } from "./log-file.ts";
import { OwnLogs, toRecord } from "./own-logs.ts";

interface Call {
  readonly key: string | undefined;
  readonly records: Record<string, unknown>[];
}

/** An ingest that answers with these states in turn, and then with 200. */
async function ingest(...states: number[]): Promise<AsyncDisposable & { url: string; calls: Call[] }> {
  const calls: Call[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const records = body
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    calls.push({ key: request.headers["idempotency-key"] as string | undefined, records });
    response.writeHead(states.shift() ?? 200).end("{}");
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  async function close(): Promise<void> {
    const closed = new Promise<void>((done) => server.close(() => done()));
    server.closeAllConnections();
    await closed;
  }
  return { url, calls, [Symbol.asyncDispose]: close };
}

const now = new Date("2026-11-21T00:00:00Z");
test.each([
  [
    "nats-server",
    "[5] 2026/11/21 12:40:47.295936 [WRN] careful",
    { timestamp: "2026-11-21T12:40:47.295936Z", level: "warn", message: "careful" },
  ],
  [
    "ClickHouse",
    '{"date_time_utc":"x","date_time":"1795267929.763212","level":"Warning","message":"m","logger_name":"L"}',
    { timestamp: "2026-11-21T13:32:09.763212Z", level: "warning", message: "m", logger_name: "L" },
  ],
  [
    "a service, with its error",
    '{"level":"error","service":"other","component":"gateway","timestamp":"2026-01-01T00:00:00.000Z","err":{"type":"E","stack":"s"},"message":"m"}',
    { component: "gateway", timestamp: "2026-01-01T00:00:00.000Z", level: "error", message: "m", err: { type: "E", stack: "s" } },
  ],
  ["plain text", "oops", { timestamp: now.toISOString(), level: "info", message: "oops" }],
  ["cut JSON", '{"level":"er', { message: '{"level":"er', level: "info" }],
])("a line of %s becomes a record", (_what, line, expected) => {
  expect(toRecord("c", line, now)).toEqual({ timestamp: expect.any(String), component: "c", service: "relog", ...expected });
});

test("what was not taken is sent again, the same under the same key", async () => {
  await using server = await ingest(503, 429);
  await using logs = new OwnLogs(server.url, "k");
  logs.add("c", "one");
  expect(await logs.flush()).toBe(false);
  logs.add("c", "two");
  expect(await logs.flush()).toBe(false);
  expect(await logs.flush()).toBe(true);
  expect(await logs.flush()).toBe(true);
  expect(server.calls.map(({ records }) => records.map((record) => record.message))).toEqual([["one"], ["one"], ["one"], ["two"]]);
  expect(new Set(server.calls.map((call) => call.key)).size).toBe(2);
});

test("over the bound the oldest lines go, and the next batch says how many", async () => {
  await using server = await ingest();
  await using logs = new OwnLogs(server.url, "k", 2_000);
  for (let i = 0; i < 100; i++) logs.add("c", `line ${i}`);
  const dropped = logs.dropped;
  expect(dropped).toBeGreaterThan(50);
  expect(await logs.flush()).toBe(true);
  const records = server.calls[0]!.records;
  expect(records[0]).toMatchObject({ level: "warn", component: "dev", service: "relog", dropped });
  expect(records[1]!.message).toBe(`line ${dropped}`);
  expect(records).toHaveLength(101 - dropped);
  expect(await logs.flush()).toBe(false);
});

test("a log file is bounded within a run, and keeps what an earlier run wrote", () => {
  const dir = mkdtempSync(join(tmpdir(), "relog-log-"));
  const path = join(dir, "logs/x.log");
  {
    using first = new LogFile(path, 1_000, 2);
    first.write("first run");
  }
  using file = new LogFile(path, 1_000, 2);
  for (let i = 0; i < 25; i++) file.write("y".repeat(50));
  expect(readFileSync(`${path}.1`, "utf8").startsWith("first run\n")).toBe(true);
  for (let i = 0; i < 500; i++) file.write("z".repeat(50));
  expect(readdirSync(join(dir, "logs")).sort()).toEqual(["x.log", "x.log.1", "x.log.2"]);
  for (const name of readdirSync(join(dir, "logs"))) expect(readFileSync(join(dir, "logs", name)).length).toBeLessThan(1_100);
  rmSync(dir, { recursive: true });
});

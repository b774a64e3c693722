// The query API over a real socket and a real engine.

import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HttpServer } from "../base/http.ts";
import { serveHttp } from "../base/http.ts";
import { waitFor } from "../base/loop.ts";
import { NO_TENANCY } from "./limits.ts";
import type { TestEngine } from "./testing.ts";
import { ask, SECRET, startTestEngine, TEST_SQL_BYTES_MAX, textOf } from "./testing.ts";

let engine: TestEngine;
let server: HttpServer;
beforeAll(async () => {
  engine = await startTestEngine(process.env);
  server = await serveHttp(engine.app(), "127.0.0.1", 0, "RELOG_QUERY_PORT", 100);
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await engine[Symbol.asyncDispose]();
});

const post = (body: string, headers: Record<string, string> = {}, query = ""): Promise<Response> =>
  fetch(`http://127.0.0.1:${server.port}/v1/query${query}`, { method: "POST", body, headers: { authorization: "Bearer a", ...headers } });

const ROW = "SELECT timestamp, line, 9007199254740993 AS big, nan AS none, body FROM logs ORDER BY line LIMIT 1";
const LONG = "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 1";
/** Fails long after the first bytes have gone out. */
const LATE = "SELECT number, repeat('x', 100), toUInt8(if(number < 1000000, '1', 'x')) AS y FROM numbers(2000000)";

describe("formats", () => {
  it("NDJSON is the default", async () => {
    const response = await post(ROW, { "content-type": "text/plain" });
    expect(response.headers.get("content-type")).toBe("application/x-ndjson; charset=utf-8");
    expect(response.headers.get("x-relog-query-id")).toMatch(/^query-/);
    expect(await response.text()).toBe(
      '{"timestamp":"2026-01-02T03:00:00.000000000Z","line":0,"big":9007199254740993,"none":null,"body":"own-word request 0 failed after 0 ms"}\n',
    );
  });

  it("JSON is one document without statistics", async () => {
    const answer = (await (await post(ROW, { accept: "application/json" })).json()) as {
      meta: unknown[];
      data: { line: number }[];
      rows: number;
    };
    expect({ columns: answer.meta.length, rows: answer.rows, line: answer.data[0]?.line }).toEqual({ columns: 5, rows: 1, line: 0 });
    expect(answer).not.toHaveProperty("statistics");
  });

  it("CSV has a header", async () => {
    const text = await (await post("SELECT line, timestamp FROM logs ORDER BY line LIMIT 1", { accept: "text/csv" })).text();
    expect(text).toBe('"line","timestamp"\n0,"2026-01-02T03:00:00.000000000Z"\n');
  });

  it("Parquet and Arrow pass through byte for byte", async () => {
    const parquet = Buffer.from(await (await post(ROW, { accept: "application/vnd.apache.parquet" })).arrayBuffer());
    expect([parquet.subarray(0, 4).toString(), parquet.subarray(-4).toString()]).toEqual(["PAR1", "PAR1"]);
    const arrow = Buffer.from(await (await post(ROW, { accept: "application/vnd.apache.arrow.stream" })).arrayBuffer());
    expect(arrow.readUInt32LE(0)).toBe(0xffffffff);
  });

  it("a large answer arrives whole", async () => {
    const text = await (await post("SELECT number, repeat('y', 50) AS y FROM numbers(200000)")).text();
    expect(text.split("\n").length).toBe(200_001);
  });

  it("an answer without rows is empty", async () => {
    expect(await (await post("SELECT 1 WHERE 0")).text()).toBe("");
  });
});

describe("requests", () => {
  it.each<[string, string, Record<string, string>, string, string]>([
    ["no key", "SELECT 1", { authorization: "" }, "", "unauthenticated"],
    ["another key", "SELECT 1", { authorization: "Bearer x" }, "", "unauthenticated"],
    ["an unknown format", "SELECT 1", { accept: "text/html" }, "", "not_acceptable"],
    ["a FORMAT clause", "SELECT 1 FORMAT TSV", {}, "", "query_refused"],
    ["another media type", "SELECT 1", { "content-type": "application/xml" }, "", "unsupported_media_type"],
    ["broken JSON", "{", { "content-type": "application/json" }, "", "bad_request"],
    ["an unknown key", '{"sql":"SELECT 1","x":1}', { "content-type": "application/json" }, "", "bad_request"],
    ["no sql", "{}", { "content-type": "application/json" }, "", "bad_request"],
    ["a parameter name with a space", '{"sql":"SELECT 1","params":{"a b":1}}', { "content-type": "application/json" }, "", "bad_request"],
    ["a setting in the URL", "SELECT 1", {}, "?log_comment=b", "bad_request"],
    [
      "too many parameters",
      JSON.stringify({ sql: "SELECT 1", params: { a: "x".repeat(20_000) } }),
      { "content-type": "application/json" },
      "",
      "body_too_large",
    ],
    ["a body too large", "x".repeat(4 * TEST_SQL_BYTES_MAX), {}, "", "body_too_large"],
    ["an unknown column", "SELECT nothing FROM logs", {}, "", "query_invalid"],
    ["a wrong type", "SELECT 1 + 'x'", {}, "", "query_invalid"],
  ])("%s", async (_what, body, headers, query, code) => {
    const response = await post(body, { "content-type": "text/plain", ...headers }, query);
    expect(((await response.json()) as { error: { code: string } }).error.code).toBe(code);
    expect(response.ok).toBe(false);
  });

  it("takes parameters from the URL of a text request", async () => {
    const response = await post("SELECT {a:String} AS a, {b:UInt8} AS b", { "content-type": "text/plain" }, "?param_a=it's%0A&param_b=7");
    expect(await response.json()).toEqual({ a: "it's\n", b: 7 });
  });

  it("points to the place of a syntax error", async () => {
    const response = await post("SELECT 1 FROMM logs WHERE", { "content-type": "text/plain" });
    const { error } = (await response.json()) as { error: { code: string; position: number } };
    expect({ code: error.code, before: "SELECT 1 FROMM logs WHERE".slice(error.position - 1).split(" ")[0] }).toMatchObject({
      code: "query_invalid",
    });
    expect(error.position).toBeLessThanOrEqual(26);
  });

  it("gives each tenant its own rows", async () => {
    const sql = "SELECT groupUniqArray(tenant) AS tenants, count() AS n FROM logs";
    for (const key of ["a", "b"])
      expect(JSON.parse((await textOf(await ask(engine.app(), sql, { key }))).text)).toEqual({ tenants: [key], n: 300 });
  });

  it("is refused the same way with GET", async () => {
    expect((await engine.app().request("/v1/query")).status).toBe(405);
  });
});

describe("limits", () => {
  it.each([
    ["time", { timeMaxMs: 1_000 }, LONG],
    ["memory", { memoryMaxBytes: 30_000_000 }, "SELECT groupArray(number) FROM numbers(100000000)"],
    ["rows answered", { resultRowsMax: 10 }, "SELECT number FROM numbers(1000)"],
    ["bytes of a constant", { resultBytesMax: 1_000_000 }, "SELECT repeat('x', 100000) FROM numbers(1000)"],
    ["bytes answered", { resultBytesMax: 1_000 }, "SELECT number FROM numbers(100000)"],
    ["rows read", { rowsReadMax: 1_000 }, "SELECT sum(number) FROM numbers(100000)"],
  ])("%s", async (_what, limits, sql) => {
    const response = await ask(engine.app(limits), sql);
    // Some limits are only passed after the first rows have gone out.
    const { error } = JSON.parse((await textOf(response)).text.trimEnd().split("\n").at(-1)!) as {
      error: { code: string; message: string };
    };
    expect(error).toMatchObject({ code: "query_too_expensive", message: expect.stringContaining("RELOG_QUERY_") });
  });

  it("refuses more queries than allowed with Retry-After, and recovers", async () => {
    const app = engine.app({ queriesMax: 1 });
    const first = await ask(app, "SELECT number, repeat('x', 100) FROM numbers(1000000)");
    const second = await ask(app, "SELECT 1");
    expect([first.status, second.status, second.headers.get("retry-after")]).toEqual([200, 429, "1"]);
    await first.body?.cancel();
    expect((await ask(app, "SELECT 1")).status).toBe(200);
  });
});

describe("errors in the middle of an answer", () => {
  it("NDJSON ends with an error line and a broken connection", async () => {
    const { text, broken } = await textOf(await post(LATE));
    expect(broken).toBe(true);
    expect(text).not.toContain("__exception__");
    const lines = text.trimEnd().split("\n");
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ error: { code: "query_invalid" } });
    expect(lines.length).toBeGreaterThan(1_000);
  });

  it("CSV breaks the connection", async () => {
    const { text, broken } = await textOf(await post(LATE, { accept: "text/csv" }));
    expect(broken).toBe(true);
    expect(text).not.toContain("exception");
    expect(text.slice(-2_000)).not.toContain("Error");
  });
});

describe("leaving", () => {
  const running = async (): Promise<number> => {
    const statement = "SELECT count() FROM system.processes WHERE user = 'reader' AND query_id LIKE 'query-%' FORMAT TSV";
    return Number((await engine.writer.read({ statement })).toString("utf8"));
  };

  it.each([
    ["before the answer", LONG, false],
    ["in the middle of it", "SELECT number, repeat('x', 100) FROM numbers(100000000000)", true],
  ])("%s cancels the query", async (_what, sql, answered) => {
    const body = JSON.stringify({ sql });
    const headers = { authorization: "Bearer a", "content-type": "application/json" };
    const request = httpRequest({ host: "127.0.0.1", port: server.port, path: "/v1/query", method: "POST", headers });
    const response = new Promise<void>((resolve) =>
      request.on("response", (got) => got.once("data", () => resolve(got.pause() && undefined))),
    );
    request.on("error", () => undefined);
    request.end(body);
    if (answered) await response;
    await waitFor("the query to run", async () => ((await running()) > 0 ? true : undefined));
    request.destroy();
    await waitFor("the query to be gone", async () => ((await running()) === 0 ? true : undefined));
    await waitFor("its count", async () =>
      (await engine.telemetry.registry.metrics()).includes('outcome="cancelled"') ? true : undefined,
    );
  });
});

it("never shows another tenant's word", async () => {
  expect((await textOf(await post("SELECT * FROM logs"))).text).not.toContain(SECRET);
});

it("a body whose length is not announced is read, within the same bound", async () => {
  const chunked = (text: string) =>
    fetch(`http://127.0.0.1:${server.port}/v1/query`, {
      method: "POST",
      headers: { authorization: "Bearer a" },
      body: new Blob([text]).stream(),
      duplex: "half",
    } as RequestInit);
  expect((await chunked("SELECT 1 AS one")).status).toBe(200);
  expect((await chunked("x".repeat(4 * TEST_SQL_BYTES_MAX))).status).toBe(413);
});

it("the query of one who presses has one thread", async () => {
  const presses = (principal: { readonly tenant: string }) => principal.tenant === "b";
  const app = engine.app({}, { tenancy: { ...NO_TENANCY, presses } });
  const threads = async (key: string): Promise<string> => {
    const leave = new AbortController();
    const body = JSON.stringify({ sql: LONG });
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    const asked = Promise.resolve(app.request("/v1/query", { method: "POST", headers, body, signal: leave.signal }));
    const over = asked.then(
      () => undefined,
      () => undefined,
    );
    const statement = "SELECT Settings['max_threads'] FROM system.processes WHERE query_id LIKE 'query-%'";
    const running = async (): Promise<string> => (await engine.writer.read({ statement })).toString().trim();
    const found = await waitFor("the query to run", async () => (await running()) || undefined);
    leave.abort();
    await over;
    await waitFor("its end", async () => ((await running()) === "" ? true : undefined));
    return found;
  };
  expect([await threads("a"), await threads("b")]).toEqual(["2", "1"]);
});

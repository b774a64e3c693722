// `relog tail` on a running installation.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { command } from "../../cmd/relog/tail.ts";
import { waitFor } from "../../lib/base/loop.ts";
import { fakeIo } from "../../lib/cli/testing.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { faultTest } from "../fault/kit.ts";
import type { Relog } from "../fault/relog.ts";
import { ran, relog } from "../fault/relog.ts";

async function send(gateway: Service, key: string, ...records: object[]): Promise<void> {
  const body = records.map((record) => JSON.stringify(record)).join("\n");
  const answer = await fetch(`${gateway.url}/v1/ingest`, { method: "POST", headers: { "x-api-key": key }, body });
  expect(answer.status).toBe(200);
}

const says = (tail: Relog, text: string): Promise<true> =>
  waitFor(`"${text}" of ${JSON.stringify(tail.said())}`, () => (tail.said().includes(text) ? true : undefined), 30_000);

faultTest("records are shown as they come, harmless, filtered, and on over a restart of the query service", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  const env = { RELOG_QUERY_URL: query.url };
  await send(gateway, rig.key, { message: "earlier", level: "error", service: "api" });
  const plain = relog(rig, ["tail", "--since", "1h", "--level", "warn", "--attribute", "user=7"], env);
  const json = relog(rig, ["tail", "--since=1h", "--json"], env);
  await says(json, '"message":"earlier"');
  const hostile = { message: "\u001b[2Jcleared\nnext \u202eturned", level: "error", service: "a\u0007b", user: 7, big: 1e21 };
  await send(gateway, rig.key, hostile, { message: "not wanted", level: "info", user: 7 }, { message: "neither", level: "error", user: 8 });
  await says(plain, "cleared");
  await says(json, "neither");
  expect(plain.said()).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]{12}Z error {3}a\\x07b \\x1b\[2Jcleared\\nnext \\u202eturned\n$/);
  for (const char of ["\u001b", "\u202e", "\u0007"]) expect(json.said()).not.toContain(char);
  const lines = json.said().trim().split("\n");
  expect(lines.map((line) => JSON.parse(line).message)).toEqual(["earlier", hostile.message, "not wanted", "neither"]);
  query.kill("SIGTERM");
  await query.child.exited;
  await send(gateway, rig.key, { message: "meanwhile", level: "fatal", user: 7 });
  await query.restart();
  await send(gateway, rig.key, { message: "after it", level: "fatal", user: 7 });
  for (const tail of [plain, json]) for (const text of ["meanwhile", "after it"]) await says(tail, text);
  expect([plain, json].map((tail) => tail.said().split("meanwhile").length)).toEqual([2, 2]);
  for (const tail of [plain, json]) tail.kill("SIGTERM");
  expect([(await plain.ended).code, (await json.ended).code]).toEqual([130, 130]);
});

faultTest("what cannot be is said: a wrong filter, no service, an unknown key, one that ends", async (rig) => {
  // It makes the streams.
  await rig.gateway();
  const query = await rig.service("query");
  const env = { RELOG_QUERY_URL: query.url };
  expect((await ran(rig, ["tail", "--attribute", "user"], env, 2)).said).toContain("NAME=VALUE");
  expect((await ran(rig, ["tail", "--level", "loud"], env, 1)).said).toMatch(/bad_request: level: expected trace/);
  expect((await ran(rig, ["tail"], {}, 1)).said).toContain("RELOG_QUERY_URL");
  expect((await ran(rig, ["tail"], { RELOG_QUERY_URL: "http://127.0.0.1:1" }, 1)).said).toMatch(/http:\/\/127\.0\.0\.1:1 does not answer/);
  expect((await ran(rig, ["tail"], { ...env, RELOG_KEY: "relog_nobody" }, 1)).said).toMatch(/unauthenticated/);
  await ran(rig, ["tenants", "create", "acme"]);
  const { out } = await ran(rig, ["keys", "create", "acme", "--scope", "query"]);
  const key = out.trim();
  await waitFor("the key to be known", async () => {
    const answer = await fetch(`${query.url}/v1/whoami`, { headers: { "x-api-key": key } });
    return answer.ok ? true : undefined;
  });
  const tail = relog(rig, ["tail"], { ...env, RELOG_KEY: key });
  const running = async (): Promise<true | undefined> =>
    /^relog_tails_running\S* 1$/m.test(await (await fetch(`${query.url}/metrics`)).text()) ? true : undefined;
  await waitFor("the tail", running);
  await ran(rig, ["keys", "revoke", "acme", key.split("_")[1]!]);
  const end = await tail.ended;
  expect([end.code, end.said]).toEqual([1, expect.stringMatching(/unauthenticated: the API key has ended/)]);
});

faultTest("the running stack of npm start is found by its folder", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  const { natsUrl, natsPassword, clickhouse } = rig.stack;
  const { url, user, password, readerPassword } = clickhouse!;
  const contract = {
    ingestUrl: gateway.url,
    queryUrl: query.url,
    natsUrl,
    tenant: "default",
    key: rig.key,
    clickhouse: { url, user, password },
  };
  writeFileSync(join(rig.stack.dir, "dev.json"), JSON.stringify(contract));
  writeFileSync(
    join(rig.stack.dir, "secrets.json"),
    JSON.stringify({ key: rig.key, natsPassword, clickhousePassword: password, readerPassword }),
  );
  await send(gateway, rig.key, { message: "found", service: "api", level: "error" });
  const io = fakeIo({ RELOG_DIR: rig.stack.dir }, { columns: 80 });
  const ended = command.run(["--since", "1h"], io);
  await waitFor("the record", () => (io.stdout().includes("found") ? true : undefined));
  io.abort();
  expect(await ended).toBe(130);
  expect([io.stdout(), io.stderr()]).toEqual([
    expect.stringContaining("\u001b[31merror  \u001b[0m"),
    `using the stack in ${rig.stack.dir}\n`,
  ]);
});

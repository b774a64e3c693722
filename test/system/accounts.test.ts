// Accounts on a running installation: keys work and end everywhere, the commands need no query service, nobody starts blind.

import { request } from "node:http";
import { connect } from "nats";
import { expect } from "vitest";
import { newKey } from "../../lib/accounts/keys.ts";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { faultTest } from "../fault/kit.ts";
import { ran, relog } from "../fault/relog.ts";

async function call(service: Service, key: string | undefined, line: string, body?: unknown) {
  const [method = "", path = ""] = line.split(" ");
  const text = typeof body === "string" || body === undefined ? body : JSON.stringify(body);
  const headers: Record<string, string> = key === undefined ? {} : { "x-api-key": key };
  const answer = await fetch(`${service.url}${path}`, { method, headers, ...(text === undefined ? {} : { body: text }) });
  const raw = await answer.text();
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
  return { status: answer.status, body: (raw.startsWith("{") ? JSON.parse(raw) : raw) as any };
}

const ingest = (gateway: Service, key: string) => call(gateway, key, "POST /v1/ingest", '{"message":"hello"}');
/** What is refused whoever sends it, so that no stream has to take it: 415 while the key lives, then 401. */
const refusedEither = (gateway: Service, key: string) =>
  fetch(`${gateway.url}/v1/ingest`, { method: "POST", headers: { "x-api-key": key, "content-type": "image/png" }, body: "{}" });
const query = (service: Service, key: string) => call(service, key, "POST /v1/query", "SELECT count() AS n FROM logs");
const NEVER_MS = 5_000;
/** Of a record whose rest comes later. */
const BEGUN = '{"message":';

async function untilStatus(ask: () => Promise<{ status: number }>, status: number): Promise<void> {
  await waitFor(`status ${status}`, async () => ((await ask()).status === status ? true : undefined), NEVER_MS, 5);
}

faultTest("a key works everywhere, sees its own tenant only, and ends everywhere within a second", async (rig) => {
  const [gateway, second, asked] = [await rig.gateway(), await rig.gateway(), await rig.service("query")];
  await rig.projector();
  const scheduler = await rig.service("scheduler");
  expect((await call(asked, rig.key, "POST /v1/tenants", { tenant: "acme" })).status).toBe(201);
  const { body } = await call(asked, rig.key, "POST /v1/tenants/acme/keys", { scopes: ["ingest", "query", "admin"], label: "ci" });
  for (const service of [gateway, second]) await untilStatus(() => ingest(service, body.key), 200);
  expect((await query(asked, body.key)).status).toBe(200);
  await waitFor("its own two records", async () => ((await query(asked, body.key)).body.n === 2 ? true : undefined));
  // A body whose length is not announced, and one that is too long.
  const chunked = (size: number) =>
    fetch(`${asked.url}/v1/tenants`, {
      method: "POST",
      headers: { "x-api-key": rig.key },
      body: new Blob([JSON.stringify({ tenant: "chunked", title: "x".repeat(size) })]).stream(),
      duplex: "half",
    });
  expect([(await chunked(100_000)).status, (await chunked(10)).status, (await chunked(10)).status]).toEqual([413, 201, 409]);
  // A tenant's admin is no operator.
  expect([(await call(scheduler, body.key, "GET /v1/jobs")).status, (await call(scheduler, rig.key, "GET /v1/jobs")).status]).toEqual([
    403, 200,
  ]);
  expect((await call(asked, body.key, "POST /v1/tenants", { tenant: "mine" })).status).toBe(403);
  // Another tenant's records are not there for it.
  expect((await ingest(gateway, rig.key)).status).toBe(200);
  await waitFor("the other tenant's record", async () => (Number((await query(asked, rig.key)).body.n) === 1 ? true : undefined));
  expect((await query(asked, body.key)).body.n).toBe(2);
  // Revoked by the command, which knows nothing of these processes.
  await ran(rig, ["keys", "revoke", "acme", body.id, "--reason", "leaked"]);
  await Promise.all([
    untilStatus(() => ingest(gateway, body.key), 401),
    untilStatus(() => ingest(second, body.key), 401),
    untilStatus(() => query(asked, body.key), 401),
  ]);
  const { entries } = (await call(asked, rig.key, "GET /v1/audit?tenant=acme")).body;
  // And over HTTP, from the moment of the call.
  const again = (await call(asked, rig.key, "POST /v1/tenants/acme/keys", { scopes: ["ingest", "query"] })).body;
  for (const service of [gateway, second]) await untilStatus(() => ingest(service, again.key), 200);
  const ended = [gateway, second].map((service) => untilStatus(() => ingest(service, again.key), 401));
  expect((await call(asked, rig.key, `DELETE /v1/tenants/acme/keys/${again.id}`)).status).toBe(200);
  expect((await query(asked, again.key)).status).toBe(401);
  await Promise.all(ended);
  expect(entries[0]).toMatchObject({ what: "key_revoked", where: expect.stringMatching(/^relog@/), data: { reason: "leaked" } });
  expect(entries[1]).toMatchObject({
    what: "key_created",
    who: "key env of default",
    where: expect.stringMatching(/^query@.*client 127\.0\.0\.1|^query@.*client ::/),
  });
  expect((await call(asked, undefined, "GET /docs")).body).toContain("<!doctype html>");
  expect((await call(asked, undefined, "GET /openapi.json")).body.openapi).toBe("3.1.0");
});

faultTest("a gateway that is leaving still hears of keys that end", async (rig) => {
  const [gateway, stays, asked] = [await rig.gateway(), await rig.gateway(), await rig.service("query")];
  expect((await call(asked, rig.key, "POST /v1/tenants", { tenant: "acme" })).status).toBe(201);
  const { id, key } = (await call(asked, rig.key, "POST /v1/tenants/acme/keys", { scopes: ["ingest"] })).body;
  await untilStatus(() => ingest(gateway, key), 200);
  // Calls that are begun, and whose bodies come when it is closed to others.
  const begun = Array.from({ length: 40 }, () => {
    const call = request(`${gateway.url}/v1/ingest`, { method: "POST", agent: false, headers: { "x-api-key": key } });
    call.write(BEGUN);
    const status = new Promise<number | undefined>((resolve, reject) => {
      call.on("response", (answer) => resolve(answer.resume().statusCode)).on("error", reject);
    });
    status.catch(() => undefined);
    return { call, status };
  });
  const inFlight = async () =>
    /^relog_ingest_bytes_in_flight\{.*\} (\d+)$/m.exec((await call(gateway, undefined, "GET /metrics")).body)?.[1];
  await waitFor("the calls to be under way", async () => ((await inFlight()) === String(40 * BEGUN.length) ? true : undefined));
  gateway.kill("SIGTERM");
  await waitFor("the gateway to close", () =>
    fetch(gateway.url).then(
      () => undefined,
      () => true as const,
    ),
  );
  expect((await call(asked, rig.key, `DELETE /v1/tenants/acme/keys/${id}`)).status).toBe(200);
  await untilStatus(() => ingest(stays, key), 401);
  const statuses: (number | undefined)[] = [];
  for (const { call, status } of begun) {
    call.end('"m"}');
    statuses.push(await status);
    if (statuses.at(-1) === 401) break;
  }
  expect(statuses.at(-1)).toBe(401);
  for (const { call } of begun.slice(statuses.length)) call.on("error", () => undefined).destroy();
});

faultTest("the commands work while the query service is down; hostile texts harm no terminal", async (rig) => {
  await rig.gateway();
  const json = async (...args: string[]) =>
    JSON.parse((await ran(rig, [...args, "--json"])).out.trim().split("\n")[0]!) as Record<string, unknown>;
  expect(await json("tenants", "create", "acme", "--title", "Grüße 世界")).toMatchObject({ tenant: "acme", status: "active" });
  const made = await ran(rig, ["keys", "create", "acme", "--scope", "ingest", "--scope", "query", "--label", "ci", "--expires-in", "90d"]);
  expect(made.out).toMatch(/^relog_[a-z2-7]{16}_[a-z2-7]{52}\n$/);
  const next = await json("keys", "rotate", "acme", made.out.split("_")[1]!, "--grace", "1h");
  expect(next).toMatchObject({ label: "ci", replaces: made.out.split("_")[1] });
  expect(await json("limits", "set", "acme", "bytes_per_day=1000", "retention_days=30")).toEqual({
    limits: {},
    quotas: { bytes_per_day: 1000 },
    retention_days: 30,
  });
  const limited = async (...pairs: string[]) => JSON.parse((await ran(rig, ["keys", "limit", "acme", next.id as string, ...pairs])).out);
  expect(await limited("queries_at_once=2", "ingest_records_per_second=100")).toEqual({
    queries_at_once: 2,
    ingest_records_per_second: 100,
  });
  expect([await limited("queries_at_once=none"), await limited()]).toEqual(Array(2).fill({ ingest_records_per_second: 100 }));
  await ran(rig, ["keys", "limit", "acme", next.id as string, "query_rows=1"], {}, 2);
  expect((await ran(rig, ["keys", "list", "acme"])).out.split("\n")).toHaveLength(4);
  for (const args of [
    ["keys", "create", "acme"],
    ["keys", "create", "acme", "--scope", "query", "--label", "\u001b[2J"],
    ["tenants", "create", "A"],
    ["tenants", "delete", "acme"],
    ["limits", "set", "acme", "nonsense=1"],
  ]) {
    const { said } = await ran(rig, args, {}, 2);
    expect(said).not.toContain("\u001b");
  }
  expect((await ran(rig, ["keys", "list", "nobody"], {}, 1)).said).toMatch(/not_found/);
  // What somebody else wrote into the stream is shown as it may be.
  const nc = await rig.nats();
  await nc.jetstream().publish("control.operations", JSON.stringify({ what: "\u001b[2Jx", who: "a\u202eb", where: "w" }));
  const { out } = await ran(rig, ["audit", "--limit", "20"]);
  expect(out).toContain("\\x1b[2Jx");
  expect(out).not.toMatch(/\u202e/);
  expect((await ran(rig, ["audit", "--tenant", "acme", "--what", "key_created", "--json"])).out.trim().split("\n")).toHaveLength(2);
  // Two at once lose nothing.
  const both = [1, 2, 3].map((i) => relog(rig, ["keys", "create", "acme", "--scope", "query", "--label", `n${i}`]).ended);
  expect((await Promise.all(both)).map(({ code }) => code)).toEqual([0, 0, 0]);
  expect((await ran(rig, ["keys", "list", "acme", "--json"])).out.trim().split("\n")).toHaveLength(5);
});

faultTest("without a bootstrap key the query service makes the first operator's key, and logs it once", async (rig) => {
  const none = { RELOG_KEY: "" };
  const gateway = await rig.gateway(none);
  const asked = await rig.service("query", none);
  const keyOf = (service: Service): string | undefined => /"key":"(relog_[a-z2-7_]+)"/.exec(service.logs.join("\n"))?.[1];
  const key = await waitFor("the key in the log", () => keyOf(asked));
  expect((await call(asked, key, "GET /v1/whoami")).body).toMatchObject({
    tenant: "default",
    operator: true,
    scopes: ["ingest", "query", "admin"],
  });
  await untilStatus(() => ingest(gateway, key), 200);
  expect([(await ingest(gateway, "")).status, (await call(asked, "", "GET /v1/whoami")).status]).toEqual([401, 401]);
  await asked.restart();
  // What it had noted of the key's use was written when it left.
  expect((await ran(rig, ["keys", "list", "default", "--json"])).out).toMatch(/"last_used":"20[^"]*:00\.000Z"/);
  await untilStatus(() => call(asked, key, "GET /v1/whoami"), 200);
  expect((await call(asked, key, "GET /v1/tenants/default/keys")).body.keys).toHaveLength(1);
});

faultTest("a process that starts without NATS waits and says so; one that loses it knows what it knew", async (rig) => {
  await rig.gateway();
  const asked = await rig.service("query");
  await untilStatus(() => call(asked, rig.key, "GET /v1/tenants/default"), 200);
  const { body } = await call(asked, rig.key, "POST /v1/tenants/default/keys", { scopes: ["query"] });
  await rig.stack.nats[0]!.stop();
  expect((await call(asked, body.key, "GET /v1/whoami")).status).toBe(200);
  await waitFor("the warning", async () =>
    (await call(asked, undefined, "GET /readyz")).body.warnings?.accounts === undefined ? undefined : true,
  );
  expect((await call(asked, rig.key, "POST /v1/tenants", { tenant: "late" })).status).toBe(503);
  await asked.child.stop();
  asked.child.start();
  const report = await waitFor("an answer", async () => await call(asked, undefined, "GET /readyz").catch(() => undefined));
  expect(report).toMatchObject({ status: 503, body: { ready: false, reasons: { accounts: expect.stringMatching(/not read yet/) } } });
  expect(await call(asked, body.key, "GET /v1/whoami")).toMatchObject({ status: 503, body: { error: { code: "not_ready" } } });
  expect((await call(asked, newKey().key, "GET /v1/whoami")).status).toBe(503);
  rig.stack.nats[0]!.start();
  await rig.stack.ready();
  await untilStatus(() => call(asked, body.key, "GET /v1/whoami"), 200);
  expect((await call(asked, newKey().key, "GET /v1/whoami")).status).toBe(401);
  await waitFor("ready", async () =>
    (await call(asked, undefined, "GET /readyz")).body.reasons?.accounts === undefined ? true : undefined,
  );
});

faultTest(
  "over three nodes: while one of them is gone keys are made and revoked as ever",
  async (rig) => {
    const gateway = await rig.gateway();
    const asked = await rig.service("query");
    const make = () => call(asked, rig.key, "POST /v1/tenants/default/keys", { scopes: ["ingest"] });
    await untilStatus(() => call(asked, rig.key, "GET /v1/tenants/default"), 200);
    for (const lost of [undefined, rig.stack.nats[0]!]) {
      lost?.kill("SIGKILL");
      // An election may have to end first.
      const { body } = await waitFor("a key", () => make().then((answer) => (answer.status === 201 ? answer : undefined)), 30_000, 200);
      await untilStatus(() => ingest(gateway, body.key), 200);
      expect((await call(asked, rig.key, `DELETE /v1/tenants/default/keys/${body.id}`)).status).toBe(200);
      await untilStatus(() => refusedEither(gateway, body.key), 401);
    }
    rig.stack.nats[0]!.start();
    await rig.stack.ready();
  },
  { natsNodes: 3 },
);

faultTest("thousands of tenants with two keys each are read from the stream by a command and by a gateway", async (rig) => {
  await rig.gateway();
  const nc = await connect({ servers: rig.stack.natsUrl, user: rig.stack.natsUser, pass: rig.stack.natsPassword });
  await using _ = { [Symbol.asyncDispose]: () => nc.close() };
  const count = process.env.RELOG_TEST_LONG === "1" ? 10_000 : 2_000;
  const time = new Date().toISOString();
  const jetstream = nc.jetstream();
  let last = newKey();
  for (let from = 0; from < count; from += 250) {
    const batch = Array.from({ length: 250 }, (__, i) => {
      const tenant = `t-${from + i}`;
      const keys = [newKey(), newKey()];
      last = keys[1]!;
      const created = keys.map(({ id, hash }) => ({
        type: "key_created",
        key: id,
        hash,
        label: tenant,
        scopes: ["ingest"],
        expires: null,
        operator: false,
        replaces: null,
      }));
      const id = `01JGK${String(from + i).padStart(21, "0")}`;
      const message = {
        version: 1,
        id,
        time,
        tenant,
        who: "test",
        where: "test",
        events: [{ type: "tenant_created", title: "" }, ...created],
      };
      return jetstream.publish(`control.accounts.${tenant}`, JSON.stringify(message), { timeout: 20_000 });
    });
    await Promise.all(batch);
  }
  const gateway = await rig.gateway();
  expect((await ingest(gateway, last.key)).status).toBe(200);
  const lines = (await ran(rig, ["tenants", "list", "--json"])).out.trim().split("\n");
  expect(lines).toHaveLength(count);
});

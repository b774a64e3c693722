// API keys on NATS while the installation runs: keys end, gateways come and go, a NATS node dies.

import type { NatsConnection } from "nats";
import { connect } from "nats";
import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import type { Keys } from "../contract/keys.ts";
import { internal, keysOn, ME, producer } from "../contract/keys.ts";
import type { Rig } from "../fault/kit.ts";
import { faultTest } from "../fault/kit.ts";

const NEVER_MS = 10_000;
const ONCE = { reconnect: false } as const;

async function begin(rig: Rig): Promise<{ keys: Keys; gateway: Service }> {
  const nc = await internal(rig.stack);
  rig.use({ [Symbol.asyncDispose]: () => nc.close() });
  const gateway = await rig.gateway();
  const keys = await keysOn(nc);
  await keys.tenant("acme");
  return { keys, gateway };
}

/** Connects as soon as the gateways have heard of the key. The connection does not come back when it was ended. */
async function open(rig: Rig, key: string, tenant = "acme"): Promise<NatsConnection> {
  const nc = await waitFor(
    `the key of ${tenant} to open NATS`,
    () => producer(rig.stack, tenant, key, ONCE).catch(() => undefined),
    NEVER_MS,
  );
  rig.use({ [Symbol.asyncDispose]: () => nc.close() });
  return nc;
}

async function send(nc: NatsConnection, tenant = "acme"): Promise<number> {
  return (await nc.request(`ingest.${tenant}`, '{"message":"hello"}', { timeout: NEVER_MS })).json<{ accepted: number }>().accepted;
}

/** Resolves when the server has closed it. */
async function ended(nc: NatsConnection): Promise<void> {
  await waitFor("the connection to be ended", () => (nc.isClosed() ? true : undefined), NEVER_MS, 5);
}

/** Waits until each gateway refuses a key: the one that ends its connections may hear of the change a moment before the others. */
async function unknownTo(gateways: readonly Service[], key: string): Promise<void> {
  for (const { url } of gateways)
    await waitFor(`${url} to refuse the key`, async () => {
      const { status } = await fetch(`${url}/v1/ingest`, { method: "POST", headers: { "x-api-key": key }, body: "" });
      return status === 401 || status === 403 ? true : undefined;
    });
}

/** Revokes a key of acme's as soon as that can be written: an election may have to end first. */
async function revoked(keys: Keys, key: string): Promise<void> {
  const revoke = async () => await keys.run("acme", { type: "revoke_key", key, reason: "" }, ME);
  await waitFor(
    "the revocation",
    () =>
      revoke().then(
        () => true as const,
        () => undefined,
      ),
    30_000,
  );
}

const refused = async (attempt: Promise<NatsConnection>): Promise<void> => {
  await expect(attempt).rejects.toMatchObject({ code: "AUTHORIZATION_VIOLATION" });
};

async function metric(service: Service, name: string): Promise<number> {
  const text = await (await fetch(`${service.url}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${name}\\{[^}]*\\} (\\d+)`, "gm"))].reduce((sum, [, value]) => sum + Number(value), 0);
}

faultTest("open connections end with their key, and only they: revoked, rotated, expired, tenant disabled and deleted", async (rig) => {
  const { keys, gateway } = await begin(rig);
  const second = await rig.gateway();
  await keys.tenant("other");
  const [one, two, others] = [await keys.key("acme"), await keys.key("acme"), await keys.key("other")];
  const [first, again, other, kept] = [
    await open(rig, one.key),
    await open(rig, one.key),
    await open(rig, others.key, "other"),
    await open(rig, two.key),
  ];
  expect(await Promise.all([send(first), send(again), send(other, "other"), send(kept)])).toEqual([1, 1, 1, 1]);

  await keys.run("acme", { type: "revoke_key", key: one.id, reason: "leaked" }, ME);
  await Promise.all([ended(first), ended(again)]);
  await unknownTo([gateway, second], one.key);
  await refused(producer(rig.stack, "acme", one.key, ONCE));
  expect([await send(kept), await send(other, "other")]).toEqual([1, 1]);
  expect((await metric(gateway, "relog_nats_kicked_total")) + (await metric(second, "relog_nats_kicked_total"))).toBeGreaterThanOrEqual(2);
  const said = [...gateway.logs, ...second.logs].join("\n");
  expect(said).toContain(`"keyId":"${one.id}"`);
  for (const { key } of [one, two, others]) expect(said).not.toContain(key);

  // Two keys of a rotation live at once; the old one ends with its grace.
  const next = await keys.key("acme", ["ingest", "query"]);
  const rotated = { id: "aaaaaaaaaaaaaaaa" };
  await keys.run("acme", { type: "rotate_key", key: two.id, next: rotated.id, hash: "0".repeat(64), graceMs: 2_000 }, ME);
  const beside = await open(rig, next.key);
  expect([await send(beside), await send(kept)]).toEqual([1, 1]);
  await ended(kept);
  await unknownTo([gateway, second], two.key);
  await refused(producer(rig.stack, "acme", two.key, ONCE));

  // An expiry that was known at the connect, and one that was set afterwards.
  const brief = await keys.key("acme", ["ingest"], Date.now() + 2_500);
  const passing = await open(rig, brief.key);
  expect(await send(passing)).toBe(1);
  await ended(passing);
  await keys.run("acme", { type: "change_key", key: next.id, expiresMs: Date.now() + 700 }, ME);
  await ended(beside);

  const last = await keys.key("acme");
  const disabled = await open(rig, last.key);
  await keys.run("acme", { type: "disable_tenant", reason: "unpaid" }, ME);
  await ended(disabled);
  await unknownTo([gateway, second], last.key);
  await refused(producer(rig.stack, "acme", last.key, ONCE));
  await keys.run("acme", { type: "enable_tenant" }, ME);
  const enabled = await open(rig, last.key);
  expect(await send(enabled)).toBe(1);
  await keys.run("acme", { type: "delete_tenant", reason: "gone" }, ME);
  await ended(enabled);
  expect(await send(other, "other")).toBe(1);
});

faultTest("what is no key of a producer opens nothing; the bootstrap key and a password do", async (rig) => {
  const { keys, gateway } = await begin(rig);
  const [query, good] = [await keys.key("acme", ["query", "admin"]), await keys.key("acme")];
  await open(rig, good.key);
  const servers = rig.stack.natsUrl;
  for (const options of [
    {},
    { token: "" },
    { token: "relog" },
    { token: `${good.key.slice(0, -1)}${good.key.endsWith("a") ? "q" : "a"}` },
    { token: `relog_${good.id}_${"a".repeat(52)}` },
    { token: query.key },
    { token: "x".repeat(3_000) },
    { user: good.key },
    { user: "relog", pass: good.key },
    { user: "relog_system", pass: rig.stack.natsPassword },
    { user: "relog", pass: "" },
    { user: "producer", pass: "producer" },
  ])
    await refused(connect({ servers, ...ONCE, ...options }));
  expect(await metric(gateway, "relog_nats_connections_total")).toBeGreaterThan(8);
  expect(gateway.logs.join("\n")).toMatch(/"outcome":"(no_key|unknown_key|no_scope)"/);

  const nc = await producer(rig.stack, "acme", "", { ...ONCE, token: undefined, user: "anyone", pass: good.key });
  expect(await send(nc)).toBe(1);
  await nc.close();
  // The installation's own: also with the inbox that clients use unless told otherwise.
  const own = await connect({ servers, token: rig.key, ...ONCE });
  expect([await send(own, "default"), (await own.jetstream().publish("ingest.default", '{"message":"m"}')).duplicate]).toEqual([1, false]);
  await keys.run("default", { type: "ensure_tenant" }, ME);
  await keys.run("default", { type: "disable_tenant", reason: "" }, ME);
  await ended(own);
  await refused(connect({ servers, token: rig.key, ...ONCE }));
});

faultTest("without a gateway nobody new is let in and clients try again; what ended meanwhile ends when one is back", async (rig) => {
  const { keys, gateway } = await begin(rig);
  const [staying, leaving] = [await keys.key("acme"), await keys.key("acme")];
  const [stays, leaves] = [await open(rig, staying.key), await open(rig, leaving.key)];
  gateway.kill("SIGKILL");
  await waitFor("the gateway to be gone", () => (gateway.child.running ? undefined : true));
  // The services go on: they do not need a gateway to connect.
  await keys.run("acme", { type: "revoke_key", key: leaving.id, reason: "leaked" }, ME);
  await (await internal(rig.stack)).close();
  await refused(producer(rig.stack, "acme", staying.key, { ...ONCE, timeout: NEVER_MS }));
  // The server cannot say "later": a client that is to wait longer than two tries must be told so.
  const waiting = producer(rig.stack, "acme", staying.key, {
    waitOnFirstConnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
    ignoreAuthErrorAbort: true,
  });
  expect([stays.isClosed(), leaves.isClosed()]).toEqual([false, false]);
  await gateway.restart();
  await ended(leaves);
  const back = await waiting;
  expect([await send(back), await send(stays)]).toEqual([1, 1]);
  await back.close();
});

faultTest("a client as it comes is back after a restart of NATS, and so is the end of its connection", async (rig) => {
  const { keys } = await begin(rig);
  const made = await keys.key("acme");
  await open(rig, made.key);
  const nc = await producer(rig.stack, "acme", made.key, { reconnectTimeWait: 250 });
  rig.use({ [Symbol.asyncDispose]: () => nc.close() });
  expect(await send(nc)).toBe(1);
  rig.stack.nats[0]!.kill("SIGKILL");
  await waitFor("it to be gone", () => (rig.stack.nats[0]!.running ? undefined : true));
  rig.stack.nats[0]!.start();
  await rig.stack.ready();
  await waitFor("a receipt", async () => ((await send(nc).catch(() => 0)) === 1 ? true : undefined), 30_000);
  await revoked(keys, made.id);
  // It comes back twice, is refused twice, and gives up.
  await ended(nc);
});

faultTest("another bootstrap key ends the connections of the one before", async (rig) => {
  const first = await rig.gateway();
  const before = await open(rig, rig.key, "default");
  expect(await send(before, "default")).toBe(1);
  first.kill("SIGTERM");
  await waitFor("the gateway to be gone", () => (first.child.running ? undefined : true));
  expect(before.isClosed()).toBe(false);
  await rig.gateway({ RELOG_KEY: "relog_dev_another" });
  await ended(before);
  await refused(producer(rig.stack, "default", rig.key, ONCE));
  expect(await send(await open(rig, "relog_dev_another", "default"), "default")).toBe(1);
});

faultTest("where the server does not ask for keys only the installation's own tenant is taken at its word", async (rig) => {
  const gateway = await rig.gateway({ NATS_CALLOUT_SEED: "" });
  const { natsUrl: servers, natsUser: user, natsPassword: pass } = rig.stack;
  const as = async (inboxPrefix: string): Promise<NatsConnection> => {
    const nc = await connect({ servers, user, pass, inboxPrefix });
    rig.use({ [Symbol.asyncDispose]: () => nc.close() });
    return nc;
  };
  const [plain, acme] = [await as("_INBOX"), await as("_INBOX_acme")];
  const keys = await keysOn(plain);
  await keys.tenant("acme");
  expect(await send(plain, "default")).toBe(1);
  const { error } = (await acme.request("ingest.acme", "{}", { timeout: NEVER_MS })).json<{
    error: { code: number; description: string };
  }>();
  expect(error).toMatchObject({ code: 403, description: expect.stringMatching(/^forbidden: .*ingest\.acme/) });
  acme.publish("ingest.default", "{}", { reply: "logs.0.default" });
  await waitFor("it to be refused", async () => ((await metric(gateway, "relog_nats_replies_refused_total")) === 1 ? true : undefined));
  await refused(producer(rig.stack, "default", rig.key, ONCE));
});

faultTest("a gateway that may not end connections says so, and goes on", async (rig) => {
  const gateway = await rig.gateway({ NATS_SYSTEM_PASSWORD: "wrong" });
  await waitFor("the warning", async () => {
    const { ready, warnings } = await rig.warnings(gateway);
    return ready && /relog_system.*Authorization/.test(warnings["nats-keys"] ?? "") ? true : undefined;
  });
  expect(await send(await open(rig, rig.key, "default"), "default")).toBe(1);
  // A key that has ended stores nothing, whatever is still connected.
  const nc = await internal(rig.stack);
  rig.use({ [Symbol.asyncDispose]: () => nc.close() });
  const keys = await keysOn(nc);
  await keys.tenant("acme");
  const made = await keys.key("acme");
  const kept = await open(rig, made.key);
  expect(await send(kept)).toBe(1);
  await keys.run("acme", { type: "revoke_key", key: made.id, reason: "" }, ME);
  const answer = await waitFor("a refusal", async () => {
    const { error } = (await kept.request("ingest.acme", "{}", { timeout: NEVER_MS })).json<{
      error?: { code: number; description: string };
    }>();
    return error;
  });
  expect(answer).toMatchObject({ code: 403, description: "forbidden: the subject ingest.acme is no tenant's, or the key has ended" });
  expect(kept.isClosed()).toBe(false);
});

faultTest(
  "with three nodes of which one is killed, keys open NATS, and end on the others",
  async (rig) => {
    const { keys } = await begin(rig);
    const made = await keys.key("acme");
    await open(rig, made.key);
    rig.stack.nats[2]!.kill("SIGKILL");
    const [left, right] = rig.stack.natsUrl.split(",");
    const [one, two] = await Promise.all(
      [left!, right!].map((servers) =>
        waitFor(`the key at ${servers}`, () => producer(rig.stack, "acme", made.key, { ...ONCE, servers }).catch(() => undefined), 30_000),
      ),
    );
    // An election may have to end first.
    const sent = async (nc: NatsConnection) =>
      await waitFor("a receipt", async () => ((await send(nc).catch(() => 0)) === 1 ? true : undefined), 30_000);
    expect(await Promise.all([sent(one!), sent(two!)])).toEqual([true, true]);
    await revoked(keys, made.id);
    await Promise.all([ended(one!), ended(two!)]);
  },
  { natsNodes: 3, clickhouse: false },
);

// What keys open on NATS, and when their connections are ended: with time and the server's lists as fakes.

import { expect, it } from "vitest";
import { REVOKED_KEPT } from "./account.ts";
import { authenticator } from "./authenticate.ts";
import type { OpenConnection } from "./guard.ts";
import { Guard } from "./guard.ts";
import { newKey } from "./keys.ts";
import type { NatsOutcome } from "./nats.ts";
import { holderOf, NatsAccess, natsDecision } from "./nats.ts";
import { MemoryLog, memoryAccounts, T0 } from "./testing.ts";

const ME = { who: "me", where: "here", operator: true };
const HOME = { key: "relog_dev_1", tenant: "default" };
const ENV = /^env-[0-9a-f]{12}$/;

async function accounts() {
  const one = memoryAccounts(new MemoryLog());
  const access = new NatsAccess(HOME, one.directory, () => one.clock.ms);
  let ready = true;
  const told: [NatsOutcome, string | undefined][] = [];
  const known = authenticator(
    HOME,
    one.directory,
    () => ready,
    () => undefined,
  );
  const decide = natsDecision(known, access, (outcome, keyId) => void told.push([outcome, keyId]));
  await one.run("acme", { type: "create_tenant", title: "" }, ME);
  const make = async (scopes: readonly ("ingest" | "query")[] = ["ingest"], expiresMs: number | null = null) => {
    const made = newKey();
    await one.run("acme", { type: "create_key", key: made.id, hash: made.hash, label: "", scopes, expiresMs, operator: false }, ME);
    return made;
  };
  const setReady = (value: boolean): void => {
    ready = value;
  };
  return { ...one, access, decide, told, make, setReady };
}

it("a key opens its tenant's subject and inbox; the bootstrap key the common inbox too", async () => {
  const { decide, make, told } = await accounts();
  const [good, asks, brief] = [await make(), await make(["query"]), await make(["ingest"], T0 + 1_000)];
  const at = (credential: string | undefined) => decide({ credential, host: "h" });
  expect(at(good.key)).toEqual({
    kind: "grant",
    name: `key.acme.${good.id}`,
    publish: ["ingest.acme"],
    subscribe: ["_INBOX_acme.>"],
    untilMs: null,
  });
  expect(at(brief.key)).toMatchObject({ untilMs: T0 + 1_000 });
  expect(at(HOME.key)).toMatchObject({ publish: ["ingest.default"], subscribe: ["_INBOX_default.>", "_INBOX.>"], untilMs: null });
  for (const credential of [undefined, "", "x", asks.key, `${good.key}a`]) expect(at(credential)).toEqual({ kind: "refuse" });
  expect(told.slice(3)).toEqual([
    ["no_key", undefined],
    ["unknown_key", undefined],
    ["unknown_key", undefined],
    ["no_scope", asks.id],
    ["unknown_key", undefined],
  ]);
});

it("while the accounts are not read a key is told to come later, never that it is unknown; the bootstrap key works", async () => {
  const { decide, make, setReady, told } = await accounts();
  const { key, id } = await make();
  setReady(false);
  expect(decide({ credential: key, host: "h" })).toEqual({ kind: "later" });
  expect(told).toEqual([["later", id]]);
  expect(decide({ credential: HOME.key, host: "h" })).toMatchObject({ kind: "grant" });
  setReady(true);
  expect(decide({ credential: key, host: "h" })).toMatchObject({ kind: "grant" });
});

it("a connection's name says its key, and nobody else's name does", () => {
  expect(holderOf("key.acme.aaaaaaaaaaaaaaaa")).toEqual({ tenant: "acme", keyId: "aaaaaaaaaaaaaaaa" });
  for (const name of ["relog", "relog_system", "", "key", "key.acme", "key.acme.x.y", "key.ACME.x", "key.acme.x y"])
    expect(holderOf(name), name).toBeUndefined();
});

it("a message's caller is the key of its connection, while that is its tenant's and has not ended", async () => {
  const { access, clock, decide, make, run } = await accounts();
  const [good, brief] = [await make(), await make(["ingest"], T0 + 1_000)];
  const of = (tenant: string, sender: string | undefined) => access.caller(tenant, sender)?.keyId;
  const grant = decide({ credential: HOME.key, host: "h" });
  const env = "name" in grant ? grant.name : "";
  expect([of("acme", `key.acme.${good.id}`), of("acme", `key.acme.${brief.id}`), of("default", env)]).toEqual([good.id, brief.id, "env"]);
  // A key that this process has not heard of yet: another gateway has.
  expect(of("acme", `key.acme.${"a".repeat(16)}`)).toBe("a".repeat(16));
  expect([of("acme", undefined), of("nobody", undefined)]).toEqual(["subject", undefined]);
  for (const sender of [`key.other.${good.id}`, env, "relog", "", "key.acme", "key.acme.x.y", "key.default.env-000000000000"])
    expect(of("acme", sender), sender).toBeUndefined();
  clock.ms += 1_000;
  await run("acme", { type: "revoke_key", key: good.id, reason: "" }, ME);
  expect([of("acme", `key.acme.${good.id}`), of("acme", `key.acme.${brief.id}`)]).toEqual([undefined, undefined]);
  await run("acme", { type: "disable_tenant", reason: "" }, ME);
  expect(of("acme", undefined)).toBeUndefined();
});

it("whether a connection is still held", async () => {
  const { access, clock, decide, make, run } = await accounts();
  const [good, brief] = [await make(), await make(["ingest"], T0 + 1_000)];
  const hold = (id: string, tenant = "acme") => access.hold(`key.${tenant}.${id}`);
  expect([hold(good.id), hold(brief.id)]).toEqual([
    { kind: "held", untilMs: null },
    { kind: "held", untilMs: T0 + 1_000 },
  ]);
  clock.ms += 1_000;
  expect([hold(brief.id), hold("a".repeat(16)), hold(good.id, "other"), access.hold("relog")].map(({ kind }) => kind)).toEqual([
    "ended",
    "unknown",
    "unknown",
    "unknown",
  ]);
  const grant = decide({ credential: HOME.key, host: "h" });
  const env = holderOf("name" in grant ? grant.name : "")!;
  expect([env.tenant, env.keyId]).toEqual(["default", expect.stringMatching(ENV)]);
  expect([hold(env.keyId, "default").kind, hold("env-000000000000", "default").kind, hold(env.keyId).kind]).toEqual([
    "held",
    "ended",
    "ended",
  ]);
  expect([access.mayIngest("default"), access.mayIngest("acme"), access.mayIngest("nobody"), access.mayIngest(">")]).toEqual([
    true,
    true,
    false,
    false,
  ]);
  await run("default", { type: "ensure_tenant" }, ME);
  for (const [tenant, id] of [
    ["default", env.keyId],
    ["acme", good.id],
  ] as const) {
    await run(tenant, { type: "disable_tenant", reason: "" }, ME);
    expect([hold(id, tenant).kind, access.mayIngest(tenant)]).toEqual(["ended", false]);
    await run(tenant, { type: "enable_tenant" }, ME);
    expect([hold(id, tenant).kind, access.mayIngest(tenant)]).toEqual(["held", true]);
  }
  await run("acme", { type: "delete_tenant", reason: "" }, ME);
  expect([hold(good.id).kind, hold("b".repeat(16)).kind, access.mayIngest("acme")]).toEqual(["ended", "ended", false]);
});

async function guarded() {
  const all = await accounts();
  const time = { ms: 0 };
  const [open, looks, ended, used]: [OpenConnection[], (string | undefined)[], string[], string[]] = [[], [], [], []];
  const state = { fault: undefined as Error | undefined };
  const ports = {
    async visit(user: string | undefined, visit: (connections: readonly OpenConnection[]) => Promise<void>) {
      looks.push(user);
      if (state.fault !== undefined) throw state.fault;
      await visit(open.filter((one) => user === undefined || one.user === user));
    },
    end: async (connection: OpenConnection) => void open.splice(open.indexOf(connection), 1),
    used: (keyId: string) => void used.push(keyId),
    ended: (tenant: string, keyId: string) => void ended.push(`${tenant} ${keyId}`),
    state: () => undefined,
  };
  const guard = new Guard(all.access, ports, { now: () => all.clock.ms, monotonicMs: () => time.ms });
  all.directory.onChange((_, before) => guard.changed(before));
  const pass = async (ms: number): Promise<void> => {
    [time.ms, all.clock.ms] = [time.ms + ms, all.clock.ms + ms];
    await guard.turn();
  };
  return { ...all, open, looks, ended, used, state, pass };
}

it("a change is looked after at once and again, by name; a sweep finds the rest", async () => {
  const { ended, looks, make, open, pass, run, used } = await guarded();
  const [one, two] = [await make(), await make()];
  const [first, second] = [`key.acme.${one.id}`, `key.acme.${two.id}`];
  open.push({ user: first }, { user: second }, { user: "relog" });
  await pass(0);
  expect([looks.splice(0), ended, used.splice(0)]).toEqual([[undefined], [], [one.id, two.id]]);
  await run("acme", { type: "revoke_key", key: one.id, reason: "" }, ME);
  await pass(0);
  // Let in by a process that had not heard of it.
  open.push({ user: first });
  await pass(600);
  expect(ended).toEqual([`acme ${one.id}`, `acme ${one.id}`]);
  await pass(100);
  expect(looks.splice(0)).toEqual([first, first]);
  open.push({ user: first });
  await pass(10_000);
  expect([ended.length, looks.includes(undefined), open.map(({ user }) => user), used]).toEqual([3, true, [second, "relog"], [two.id]]);
});

it("keys that expire are looked at when they do, also when their end was moved", async () => {
  const { clock, ended, make, open, pass, run } = await guarded();
  const [soon, moved] = [await make(["ingest"], clock.ms + 1_500), await make()];
  open.push({ user: `key.acme.${soon.id}` }, { user: `key.acme.${moved.id}` });
  await pass(0);
  await run("acme", { type: "change_key", key: moved.id, expiresMs: clock.ms + 3_000 }, ME);
  await pass(1_499);
  expect(ended).toEqual([]);
  await pass(1);
  expect(ended).toEqual([`acme ${soon.id}`]);
  await pass(1_500);
  expect(ended).toEqual([`acme ${soon.id}`, `acme ${moved.id}`]);
});

it("a key that is not known yet keeps its connection for a while", async () => {
  const { ended, open, pass } = await guarded();
  const user = `key.acme.${"a".repeat(16)}`;
  open.push({ user });
  await pass(0);
  expect(ended).toEqual([]);
  await pass(10_000);
  expect(ended).toEqual([`acme ${"a".repeat(16)}`]);
});

it("of more keys that are revoked at once than are kept in mind each loses its connections", async () => {
  const { ended, make, open, pass, run } = await guarded();
  const made = [];
  for (let i = 0; i < REVOKED_KEPT + 20; i++) {
    const one = await make();
    made.push(`key.acme.${one.id}`);
    await run("acme", { type: "revoke_key", key: one.id, reason: "" }, ME);
  }
  open.push(...made.map((user) => ({ user })));
  await pass(0);
  expect([ended.length, open]).toEqual([made.length, []]);
  // Let in by a process that had not heard of it.
  open.push({ user: made[0]! });
  await pass(200);
  expect(open).toEqual([]);
});

it("what cannot be done stays due; many ends at once are one look at everything", async () => {
  const { ended, looks, make, open, pass, run, state } = await guarded();
  const made = [];
  for (let i = 0; i < 40; i++) made.push(await make());
  for (const { id } of made) open.push({ user: `key.acme.${id}` });
  await pass(0);
  looks.length = 0;
  state.fault = new Error("away");
  await run("acme", { type: "delete_tenant", reason: "" }, ME);
  await expect(pass(10)).rejects.toThrow("away");
  expect(looks.length).toBeLessThan(20);
  state.fault = undefined;
  await pass(10);
  expect([ended.length, open]).toEqual([40, []]);
});

// The directory: who a credential belongs to; hostile messages; two processes at once; ten thousand tenants.

import { expect, it } from "vitest";
import { RelogError } from "../base/errors.ts";
import { accountCommands } from "./accounts.ts";
import { authenticator } from "./authenticate.ts";
import { Directory } from "./directory.ts";
import { keyId } from "./events.ts";
import { keyIdOf, newKey } from "./keys.ts";
import type { LastUses } from "./last-use.ts";
import { LastUse } from "./last-use.ts";
import { MemoryLog, memoryAccounts, T0 } from "./testing.ts";

const ME = { who: "me", where: "here", operator: true };
const facts = { label: "l", scopes: ["query"], expiresMs: null, operator: false } as const;

it("a key has 256 random bits and an id of its own", () => {
  const made = Array.from({ length: 200 }, () => newKey());
  for (const { id, key, hash } of made) {
    expect(key).toMatch(/^relog_[a-z2-7]{16}_[a-z2-7]{52}$/);
    expect([keyIdOf(key), keyId.safeParse(id).success, hash.length]).toEqual([id, true, 64]);
  }
  expect(new Set(made.map(({ key }) => key)).size).toBe(200);
  // The last digit of a secret holds one bit, the others five: 51 * 5 + 1.
  expect(new Set(made.map(({ key }) => key.at(-1)))).toEqual(new Set(["a", "q"]));
});

it("a credential is someone's while its key and its tenant live", async () => {
  const { directory, run, clock } = memoryAccounts(new MemoryLog());
  await run("acme", { type: "create_tenant", title: "" }, ME);
  const [one, two] = [newKey(), newKey()];
  await run("acme", { type: "create_key", key: one.id, hash: one.hash, ...facts }, ME);
  await run("acme", { type: "create_key", key: two.id, hash: two.hash, ...facts, expiresMs: T0 + 1_000 }, ME);
  expect(directory.authenticate(one.key)).toEqual({ tenant: "acme", keyId: one.id, scopes: ["query"], operator: false });
  for (const wrong of [
    "",
    "relog_",
    one.key.slice(0, -1),
    `${one.key}a`,
    one.key.toUpperCase(),
    `relog_${one.id}_${two.key.slice(-52)}`,
    "x".repeat(100_000),
    newKey().key,
  ])
    expect(directory.authenticate(wrong)).toBeUndefined();
  expect(directory.authenticate(two.key)).toBeDefined();
  clock.ms += 1_000;
  expect([directory.authenticate(two.key), directory.isAlive(two.id)]).toEqual([undefined, false]);
  const changes: string[] = [];
  using _ = directory.onChange((tenant) => changes.push(tenant));
  await run("acme", { type: "disable_tenant", reason: "" }, ME);
  expect([directory.authenticate(one.key), directory.isActive("acme")]).toEqual([undefined, false]);
  await run("acme", { type: "enable_tenant" }, ME);
  expect(directory.isAlive(one.id)).toBe(true);
  await run("acme", { type: "revoke_key", key: one.id, reason: "" }, ME);
  expect(directory.authenticate(one.key)).toBeUndefined();
  await run("acme", { type: "delete_tenant", reason: "" }, ME);
  expect([directory.isActive("acme"), directory.size, changes.length]).toEqual([false, 0, 4]);
});

it("the bootstrap key works before the accounts are read; other keys are told to wait", async () => {
  const { directory, run } = memoryAccounts(new MemoryLog());
  let ready = false;
  const noted: string[] = [];
  const authenticate = authenticator(
    { key: "boot", tenant: "home" },
    directory,
    () => ready,
    (id) => noted.push(id),
  );
  expect(authenticate("boot")).toMatchObject({ tenant: "home", keyId: "env", scopes: ["ingest", "query", "admin"], operator: true });
  expect(() => authenticate("else")).toThrow(expect.objectContaining({ code: "not_ready" }));
  ready = true;
  expect(authenticate("else")).toBeUndefined();
  const none = authenticator(
    { key: "", tenant: "home" },
    directory,
    () => true,
    () => undefined,
  );
  expect([none(""), none("boot")]).toEqual([undefined, undefined]);
  await run("home", { type: "ensure_tenant" }, ME);
  const made = newKey();
  await run("home", { type: "create_key", key: made.id, hash: made.hash, ...facts }, ME);
  expect([authenticate(made.key)?.keyId, noted]).toEqual([made.id, [made.id]]);
  await run("home", { type: "disable_tenant", reason: "" }, ME);
  expect(authenticate("boot")).toMatchObject({ scopes: ["admin"], operator: true });
});

it("messages of every kind of nonsense change nothing, and are counted", async () => {
  const log = new MemoryLog();
  const { directory, run } = memoryAccounts(log);
  await run("acme", { type: "create_tenant", title: "" }, ME);
  const good = JSON.parse(Buffer.from(log.messages[0]!.payload).toString()) as Record<string, unknown>;
  const before = directory.known("acme").account;
  const messages: unknown[] = [
    "",
    "null",
    "[]",
    "{",
    "\u0000",
    { ...good, version: 2 },
    { ...good, tenant: "other" },
    { ...good, events: [] },
    { ...good, events: "x" },
    { ...good, events: [{ type: "of_tomorrow", more: 1 }, { type: "key_created", key: "x" }, null, 7] },
    { ...good, events: [{ type: "of_tomorrow" }] },
    { ...good, id: "x" },
    { ...good, time: "yesterday" },
    { ...good, events: [{ type: "tenant_renamed", title: "\u001b[2J" }] },
    { ...good, events: [{ type: "__proto__" }] },
  ];
  for (const message of messages) log.append("control.accounts.acme", message);
  log.into(directory);
  expect(directory.known("acme").account).toEqual(before);
  expect([directory.position, directory.passedOver]).toEqual([log.messages.length, messages.length - 1]);
  // And it goes on.
  await run("acme", { type: "rename_tenant", title: "t" }, ME);
  expect(directory.known("acme").account.title).toBe("t");
});

it("two processes that change one tenant at once lose nothing", async () => {
  const log = new MemoryLog();
  const [a, b] = [memoryAccounts(log), memoryAccounts(log)];
  await a.run("acme", { type: "create_tenant", title: "" }, ME);
  const keys = Array.from({ length: 40 }, () => newKey());
  await Promise.all(keys.map(({ id, hash }, i) => (i % 2 === 0 ? a : b).run("acme", { type: "create_key", key: id, hash, ...facts }, ME)));
  for (const { directory } of [a, b]) {
    log.into(directory);
    expect(keys.filter(({ key }) => directory.authenticate(key) === undefined)).toEqual([]);
  }
});

it("what is stored is answered though it cannot be read back; what may be stored is not called unavailable", async () => {
  const log = new MemoryLog();
  const made = newKey();
  for (const [outcome, wanted] of [
    ["stored", { keys: expect.objectContaining({ size: 1 }) }],
    ["unknown", expect.objectContaining({ code: "outcome_unknown" })],
  ] as const) {
    const tenant = `t-${outcome}`;
    const { ports, directory } = memoryAccounts(log);
    let away = false;
    const run = accountCommands({
      ...ports,
      async refresh() {
        if (away) throw new RelogError("stream_unavailable", "away");
        log.into(directory);
      },
      async append(message, lastSeq) {
        await ports.append(message, lastSeq);
        away = message.events[0]?.type === "key_created";
        return away ? outcome : "stored";
      },
    });
    await run(tenant, { type: "create_tenant", title: "" }, ME);
    const answer = await run(tenant, { type: "create_key", key: made.id, hash: made.hash, ...facts }, ME).catch((error: unknown) => error);
    expect(answer).toMatchObject(wanted);
  }
});

it("a lost answer is settled by reading: the command is done once", async () => {
  const log = new MemoryLog();
  const { run, directory } = memoryAccounts(log, undefined, (outcome) => (outcome === "stored" ? "unknown" : outcome));
  await run("acme", { type: "create_tenant", title: "mine" }, ME);
  const made = newKey();
  await run("acme", { type: "create_key", key: made.id, hash: made.hash, ...facts }, ME);
  expect([log.messages.length, directory.known("acme").account.title, directory.isAlive(made.id)]).toEqual([2, "mine", true]);
});

it("10,000 tenants with two keys each are folded, and their keys open", async () => {
  const [time, payloads] = [new Date(T0).toISOString(), [] as Buffer[]];
  const keys: string[] = [];
  for (let i = 0; i < 10_000; i++) {
    const made = [newKey(), newKey()];
    if (i % 1_000 === 0) keys.push(made[0]!.key);
    const created = made.map(({ id, hash }) => ({
      type: "key_created",
      key: id,
      hash,
      label: `key of ${i}`,
      scopes: ["ingest"],
      expires: null,
      operator: false,
      replaces: null,
    }));
    const id = `01JGK${String(i).padStart(21, "0")}`;
    payloads.push(
      Buffer.from(
        JSON.stringify({
          version: 1,
          id,
          time,
          tenant: `tenant-${i}`,
          who: "bench",
          where: "bench",
          events: [{ type: "tenant_created", title: "" }, ...created],
        }),
      ),
    );
  }
  const directory = new Directory({ now: () => T0 });
  for (const [i, payload] of payloads.entries()) directory.apply(i + 1, `tenant-${i}`, payload);
  expect(keys.every((key) => directory.authenticate(key) !== undefined)).toBe(true);
  expect(directory.size).toBe(10_000);
});

it("last uses: one write a bucket whatever the requests; processes share; a fault loses nothing", async () => {
  const store = new Map<number, { value: LastUses; revision: number }>();
  let [writes, away] = [0, false];
  const ports = {
    read: async (bucket: number) => {
      if (away) throw new RelogError("stream_unavailable", "away");
      return store.get(bucket);
    },
    write: async (bucket: number, value: LastUses, revision: number) => {
      writes++;
      if ((store.get(bucket)?.revision ?? 0) !== revision) return undefined;
      store.set(bucket, { value, revision: revision + 1 });
      return revision + 1;
    },
  };
  const clock = { ms: T0 };
  const [a, b] = ["a", "b"].map((owner) => new LastUse(ports, { now: () => clock.ms }, owner)) as [LastUse, LastUse];
  const [x, y] = [newKey().id, newKey().id];
  for (let i = 0; i < 10_000; i++) a.note(x);
  expect(await b.of([x, y])).toEqual(new Map());
  const minute = T0 - (T0 % 60_000);
  expect(await a.of([x, y])).toEqual(new Map([[x, minute]]));
  away = true;
  await expect(a.flush()).rejects.toThrow("away");
  away = false;
  await a.flush();
  expect(writes).toBe(1);
  expect(await b.of([x, y])).toEqual(new Map([[x, minute]]));
  clock.ms += 60_000;
  b.note(x);
  b.note(y);
  await Promise.all([a.flush(), b.flush()]);
  expect(await a.of([x, y])).toEqual(
    new Map([
      [x, minute + 60_000],
      [y, minute + 60_000],
    ]),
  );
  await a.flush();
  expect(writes).toBeLessThanOrEqual(3);
});

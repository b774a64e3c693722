// What the accounts know of retention and of what was removed.

import { expect, it } from "vitest";
import { CLASSES_MAX } from "../event/retention.ts";
import type { Account } from "./account.ts";
import { absent, CLASSES_KEPT, evolve } from "./account.ts";
import { accountCommands } from "./accounts.ts";
import type { AccountEvent, Certificate } from "./events.ts";
import { readAccountMessage } from "./events.ts";
import { MemoryLog, memoryAccounts, T0 } from "./testing.ts";

const OPERATOR = { who: "o", where: "t", operator: true };
const certificateOf = (site: string): Certificate => ({
  site,
  deleted: new Date(T0).toISOString(),
  tombstone: 2,
  verified: new Date(T0).toISOString(),
  tables: [{ table: "relog_g1.logs", rows: 3 }],
  rows: 3,
  first_timestamp: null,
  last_timestamp: null,
  dead_letters: 0,
  deferred: 0,
  registers: [],
  remains: { streams: [], archive: null, kept: [] },
});

it("a class that a tenant had is known with its end; the last ones are kept", () => {
  const change = (account: Account, days: number | null, atMs: number): Account =>
    evolve(account, { type: "retention_changed", retention_days: days }, atMs);
  let account = evolve(absent("acme"), { type: "tenant_created", title: "" }, 1);
  account = change(change(change(account, 7, 10), 30, 20), 7, 30);
  expect([...account.retentionUntil]).toEqual([
    [null, 10],
    [7, 20],
    [30, 30],
  ]);
  expect(account.retentionDays).toBe(7);
  for (let days = 1; days < 200; days++) account = change(account, 1_000 + days, 100 + days);
  expect(account.retentionUntil.size).toBe(CLASSES_KEPT);
  expect([...account.retentionUntil.keys()].at(-1)).toBe(1_198);
});

it("only a deleted tenant's removal is certified, once for each site, and nothing else changes it any more", async () => {
  const { run, directory } = memoryAccounts(new MemoryLog());
  const certify = (site: string) => run("acme", { type: "certify_erasure", certificate: certificateOf(site) }, OPERATOR);
  await run("acme", { type: "create_tenant", title: "Acme" }, OPERATOR);
  await expect(certify("main")).rejects.toMatchObject({ code: "bad_request" });
  await run("acme", { type: "delete_tenant", reason: "asked" }, OPERATOR);
  expect(directory.known("acme").account).toMatchObject({ status: "deleted", deletedMs: T0, erased: [] });
  await certify("main");
  await certify("main");
  await certify("other");
  const { account, lastSeq } = directory.known("acme");
  expect(account.erased.map(({ site }) => site)).toEqual(["main", "other"]);
  expect(lastSeq).toBe(4);
  await expect(run("acme", { type: "create_tenant", title: "" }, OPERATOR)).rejects.toMatchObject({ code: "tenant_deleted" });
  expect(evolve(absent("b"), { type: "tenant_erased", certificate: certificateOf("main") }, T0)).toEqual(absent("b"));
});

it("a certificate is read from the stream as it was written", () => {
  const event: AccountEvent = { type: "tenant_erased", certificate: certificateOf("main") };
  const message = {
    version: 1,
    id: "01JGK000000000000000000000",
    time: new Date(T0).toISOString(),
    tenant: "acme",
    who: "",
    where: "",
    events: [event],
  };
  expect(readAccountMessage(JSON.parse(JSON.stringify(message)))).toMatchObject({ unknown: 0, message: { events: [event] } });
});

it("classes of other tenants and of the settings count; the class of the tenant itself, and of deleted ones, does not", async () => {
  const log = new MemoryLog();
  const { directory } = memoryAccounts(log);
  let ids = 0;
  const run = accountCommands({
    directory,
    refresh: async () => log.into(directory),
    append: async (message, lastSeq) => log.append(`control.accounts.${message.tenant}`, message, lastSeq),
    nowMs: () => T0,
    newId: () => `01JGM${String(ids++).padStart(21, "0")}`,
    classes: async () => [400],
  });
  const keep = (tenant: string, retentionDays: number | null) => run(tenant, { type: "set_limits", retentionDays }, OPERATOR);
  for (let i = 1; i <= CLASSES_MAX; i++) await run(`t${i}`, { type: "create_tenant", title: "" }, OPERATOR);
  for (let i = 1; i < CLASSES_MAX; i++) await keep(`t${i}`, i);
  await expect(keep(`t${CLASSES_MAX}`, 99)).rejects.toMatchObject({ code: "too_many_classes" });
  await keep(`t${CLASSES_MAX}`, 400);
  await keep(`t${CLASSES_MAX}`, null);
  await keep("t1", 98);
  await run("t1", { type: "delete_tenant", reason: "" }, OPERATOR);
  await keep(`t${CLASSES_MAX}`, 99);
});

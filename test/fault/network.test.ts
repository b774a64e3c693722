// Fault 9: the network between the projector and ClickHouse loses answers, cuts connections, delays requests.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Rig } from "./kit.ts";
import { faultTest, scaled } from "./kit.ts";
import type { Faults } from "./proxy.ts";
import { ClickhouseProxy } from "./proxy.ts";

const SMALL_PLANS = { RELOG_LEASE: "3s", RELOG_PLAN_RECORDS_ENOUGH: "60", RELOG_PLAN_RECORDS_MAX: "100" };

async function through(rig: Rig, faults: Faults, env: Record<string, string> = SMALL_PLANS): Promise<ClickhouseProxy> {
  const proxy = rig.use(await ClickhouseProxy.open(rig.stack.clickhouse!.url));
  await rig.projector({ ...env, CLICKHOUSE_URL: proxy.url });
  proxy.faults = faults;
  return proxy;
}

faultTest("only the answers of inserts are lost: every third one, batches over many days", async (rig) => {
  const gateway = await rig.gateway();
  const proxy = await through(rig, { dropAnswer: (insert) => insert % 3 !== 2 });
  await rig.produce(gateway.url, { batches: scaled(60, 600), days: 6 });
  await rig.assertInvariants();
  expect(proxy.dropped).toBeGreaterThan(3);
});

faultTest("connections are cut at random moments", async (rig) => {
  const gateway = await rig.gateway();
  const proxy = await through(rig, { reset: (request) => request % scaled(8, 100) === 5 });
  await rig.produce(gateway.url, { batches: scaled(80, 2000), days: 4 });
  await rig.assertInvariants();
  expect(proxy.resets).toBeGreaterThan(0);
});

faultTest("half a second of latency changes nothing but time", async (rig) => {
  const gateway = await rig.gateway();
  const proxy = await through(rig, { latencyMs: 500 }, { RELOG_LEASE: "3s" });
  await rig.produce(gateway.url, { batches: scaled(60, 500), days: 2 });
  await rig.assertInvariants();
  // Inserts overlap with gathering, so slow ones become larger and not more.
  expect(proxy.inserts).toBeLessThan(60);
});

// The sender is told that the connection broke and settles; the request reaches the engine when the settling is over.
for (const [name, late] of [
  ["the first attempt", (insert: number) => (insert === 0 ? 700 : 0)],
  ["a repeated attempt", (insert: number) => (insert <= 2 ? 700 : 0)],
  ["most attempts", (insert: number) => (insert % 4 !== 3 ? 300 : 0)],
] as const) {
  faultTest(`an insert arrives after its sender gave it up: ${name}`, async (rig) => {
    const gateway = await rig.gateway();
    await through(rig, { late }, { ...SMALL_PLANS, RELOG_LEASE: "5s" });
    await rig.produce(gateway.url, { batches: scaled(12, 60), days: 3 });
    await rig.assertInvariants();
    // What is still under way must not arrive afterwards either.
    const before = await rig.count();
    await rig.produce(gateway.url, { batches: 1 });
    await rig.assertInvariants();
    expect(await rig.count()).toBe(before + 20);
  });
}

// Nine failures without a reason, and a tenth that did store: what is blamed or cut must be looked for first.
faultTest("many attempts are lost, and the last one before the plan is cut has arrived", async (rig) => {
  const gateway = await rig.gateway();
  await rig.produce(gateway.url, { batches: 6 });
  const proxy = await through(rig, {}, { RELOG_LEASE: "2s" });
  await rig.caughtUp();
  proxy.inserts = 0;
  proxy.faults = { refuse: (insert) => insert < 9, dropAnswer: (insert) => insert === 9 };
  const { body, markers } = rig.batch(1, 0, 5);
  await rig.send(gateway.url, body, rig.ledger.open("one", markers));
  await rig.assertInvariants();
  expect(proxy.inserts).toBe(10);
  expect(await rig.deadLetters()).toEqual([]);
});

faultTest("answers without the engine's summary are read back", async (rig) => {
  const gateway = await rig.gateway();
  await through(rig, { withoutSummary: true });
  await rig.produce(gateway.url, { batches: 20, days: 2 });
  await rig.assertInvariants();
});

// A repeated insert that still runs in the engine is as dangerous as a first one: its id must be found and killed too.
faultTest("what settling inserts can be found by the plan's token", async (rig) => {
  const gateway = await rig.gateway();
  // Three that the engine never hears of: the later ones go under other tokens.
  const proxy = await through(rig, { refuse: (insert) => insert < 3 });
  await rig.produce(gateway.url, { batches: 1 });
  await waitFor("four attempts", () => (proxy.seen.length >= 4 ? true : undefined), 60_000);
  await rig.assertInvariants();
  for (const { queryId } of proxy.seen) expect(queryId.startsWith(`${proxy.seen[0]!.token}/`), queryId).toBe(true);
});

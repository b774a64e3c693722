// Fault 5: a projector is stopped (SIGSTOP) beyond its lease while another one runs, and wakes up again.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import type { Rig } from "./kit.ts";
import { faultTest, scaled } from "./kit.ts";
import { ClickhouseProxy } from "./proxy.ts";

const LEASE = { RELOG_LEASE: "2s" };

const owners = async (rig: Rig): Promise<string[]> =>
  (await Promise.all([0, 1].map((shard) => rig.checkpoint(shard)))).map((checkpoint) => checkpoint?.owner ?? "");
const ownedBy = (service: Service) => (owner: string) => owner.split("/")[1] === String(service.pid);

async function taken(rig: Rig, service: Service): Promise<void> {
  await waitFor(
    `pid ${service.pid} to own both shards`,
    async () => ((await owners(rig)).every(ownedBy(service)) ? true : undefined),
    30_000,
    50,
  );
}

/** Waits until both shards have a plan. */
async function planned(rig: Rig): Promise<void> {
  await waitFor("a plan", async () => ((await rig.checkpoint(0))?.plan && (await rig.checkpoint(1))?.plan ? true : undefined), 20_000, 10);
}

faultTest("paused while working, over and over", async (rig) => {
  const gateway = await rig.gateway();
  let [active, other] = [await rig.projector(LEASE), await rig.projector(LEASE)];
  await taken(rig, active);
  const rounds = scaled(2, 16);
  for (let round = 0; round < rounds; round++) {
    const producing = rig.produce(gateway.url, { batches: 40, days: 3 });
    await waitFor("some progress", async () => ((await rig.count()) > round * 100 ? true : undefined), 30_000);
    active.pause();
    await taken(rig, other);
    await producing;
    active.resume();
    [active, other] = [other, active];
  }
  await rig.assertInvariants();
});

faultTest("paused with a plan written and its insert not yet sent", async (rig) => {
  const gateway = await rig.gateway();
  const proxy = rig.use(await ClickhouseProxy.open(rig.stack.clickhouse!.url));
  const first = await rig.projector({ ...LEASE, CLICKHOUSE_URL: proxy.url });
  await taken(rig, first);
  // The first insert waits in the network: the plan is there, the engine knows nothing.
  proxy.faults = { latencyMs: 1_500 };
  await rig.produce(gateway.url, { batches: 10, days: 3 });
  await planned(rig);
  first.pause();
  proxy.faults = {};
  const second = await rig.projector(LEASE);
  await taken(rig, second);
  await rig.caughtUp();
  first.resume();
  await rig.produce(gateway.url, { batches: 10 });
  await rig.assertInvariants();
});

// The one that woke up finds its plan's records neither all stored nor its own to store: it must give up its turn, and be there for the next.
faultTest("a paused one whose plan ended with a dead letter leaves it, and takes over later", async (rig) => {
  const gateway = await rig.gateway();
  const proxy = rig.use(await ClickhouseProxy.open(rig.stack.clickhouse!.url));
  const first = await rig.projector({ ...LEASE, CLICKHOUSE_URL: proxy.url });
  await rig.sql("ALTER TABLE relog_g1.logs ADD CONSTRAINT refuse CHECK position(body, 'POISON') = 0");
  await taken(rig, first);
  proxy.faults = { down: true };
  const { body, markers } = rig.batch(10, 0, 5);
  await rig.send(gateway.url, body.replace("hello", "POISON"), rig.ledger.open("poisoned", markers));
  await rig.produce(gateway.url, { batches: 10, days: 2 });
  await planned(rig);
  first.pause();
  proxy.faults = {};
  const second = await rig.projector(LEASE);
  await taken(rig, second);
  await rig.caughtUp();
  first.resume();
  await waitFor(
    "the woken one to notice",
    () => (first.logs.some((line) => line.includes("has another owner now")) ? true : undefined),
    30_000,
  );
  second.kill("SIGKILL");
  await taken(rig, first);
  await rig.produce(gateway.url, { batches: 5 });
  await rig.assertInvariants(new Set([markers[0]!]));
  expect((await rig.deadLetters()).map((letter) => letter.reason)).toEqual(["record_refused"]);
});

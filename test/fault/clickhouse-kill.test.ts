// Fault 2: ClickHouse gets SIGKILL over and over while batches that span many day-partitions are on their way.

import { sleep } from "../../lib/base/loop.ts";
import type { Rig } from "./kit.ts";
import { faultTest, LONG, scaled } from "./kit.ts";

async function killAndStart(rig: Rig, times: number): Promise<void> {
  const { child } = rig.stack.clickhouse!;
  for (let kill = 0; kill < times; kill++) {
    // How long it lives is the fault's own randomness, not a wait for something.
    await sleep(rig.random.between(0, 700));
    child.kill("SIGKILL");
    await child.exited;
    child.start();
    await rig.stack.ready();
  }
}

for (const [name, days, partitions, records] of [
  ["four partitions an insert", 4, "4", scaled(400, 4_000)],
  // Larger plans: a part a day, each synced to disk, takes its time.
  ["forty partitions a batch", 40, "1000", 4_000],
] as const) {
  faultTest(
    `killed again and again: ${name}`,
    async (rig) => {
      const gateway = await rig.gateway();
      await rig.projector({
        RELOG_LEASE: "3s",
        RELOG_PLAN_PARTITIONS_MAX: partitions,
        RELOG_PLAN_RECORDS_ENOUGH: String(records),
        RELOG_PLAN_RECORDS_MAX: String(records * 2),
      });
      const stop = new AbortController();
      const producing = rig.produce(gateway.url, { batches: 1e9, days, records: 80, concurrency: scaled(1, 2), signal: stop.signal });
      await killAndStart(rig, scaled(8, 50));
      stop.abort();
      await producing;
      await rig.assertInvariants();
    },
    { timeoutMs: LONG ? 1_800_000 : 240_000 },
  );
}

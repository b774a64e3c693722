// Fault 8: ClickHouse is down under load, out of space, or out of memory.

import { expect } from "vitest";
import { sleep, waitFor } from "../../lib/base/loop.ts";
import { faultTest, rssBytes, scaled } from "./kit.ts";
import { ClickhouseProxy } from "./proxy.ts";

const MIB = 2 ** 20;

faultTest(
  "down under load: ingestion goes on, the projector waits, says why, and does not storm",
  async (rig) => {
    const gateway = await rig.gateway();
    const proxy = rig.use(await ClickhouseProxy.open(rig.stack.clickhouse!.url));
    const projector = await rig.projector({ CLICKHOUSE_URL: proxy.url });
    await rig.produce(gateway.url, { batches: 5 });
    await rig.caughtUp();
    rig.stack.clickhouse!.child.kill("SIGKILL");
    const requests = proxy.requests;
    const stop = new AbortController();
    const producing = rig.produce(gateway.url, { batches: 1e9, records: 500, padding: 300, concurrency: 2, signal: stop.signal });
    const downMs = scaled(8_000, 300_000);
    const began = performance.now();
    let [rssMax, plansSeen] = [0, 0];
    while (performance.now() - began < downMs) {
      await sleep(200);
      rssMax = Math.max(rssMax, rssBytes(projector.pid));
      if ((await rig.checkpoint(0))?.plan) plansSeen++;
    }
    expect(plansSeen).toBeGreaterThan(0);
    expect(rssMax).toBeLessThan(400 * MIB);
    // Two shards, three requests a round, rounds 0.1 to 5 s apart.
    expect(proxy.requests - requests).toBeLessThan(2 * 3 * (10 + downMs / 2_000));
    expect(JSON.stringify((await rig.warnings(projector)).warnings)).toContain("the plan waits");
    expect(rig.ledger.of("unknown")).toEqual([]);
    stop.abort();
    await producing;
    rig.stack.clickhouse!.child.start();
    await rig.stack.ready();
    await rig.assertInvariants();
    expect((await rig.warnings(projector)).warnings).toEqual({});
  },
  { timeoutMs: scaled(120_000, 600_000) },
);

// Out of space for a while, as the engine says it (243, NOT_ENOUGH_SPACE): a reservation that is larger than any disk.
faultTest("the disk is full for a while", async (rig) => {
  const gateway = await rig.gateway();
  const projector = await rig.projector();
  await rig.sql("ALTER TABLE relog_g1.logs MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000");
  await rig.produce(gateway.url, { batches: 20, days: 2 });
  await waitFor(
    "the warning",
    async () => (/space/i.test(JSON.stringify((await rig.warnings(projector)).warnings)) ? true : undefined),
    30_000,
  );
  expect(await rig.deadLetters()).toEqual([]);
  await rig.sql("ALTER TABLE relog_g1.logs RESET SETTING min_free_disk_bytes_to_perform_insert");
  await rig.assertInvariants();
});

// Logs that compress a thousand times: few bytes in the stream, very many in the engine.
for (const [name, size] of [
  ["cut by size", "16MiB"],
  ["cut because the engine lacks memory", "1GiB"],
] as const)
  faultTest(`a backlog of records that compress extremely: ${name}`, async (rig) => {
    const gateway = await rig.gateway();
    await rig.produce(gateway.url, { batches: scaled(60, 400), records: 40, padding: 100_000 });
    const proxy = rig.use(await ClickhouseProxy.open(rig.stack.clickhouse!.url));
    proxy.faults = { insertSettings: `max_memory_usage=${200 * MIB}` };
    await rig.projector({ CLICKHOUSE_URL: proxy.url, RELOG_PLAN_BLOCK_BYTES_MAX: size });
    await rig.assertInvariants();
  });

faultTest("too many parts: the insert waits until it may go in", async (rig) => {
  const gateway = await rig.gateway();
  const projector = await rig.projector();
  await rig.sql("SYSTEM STOP MERGES relog_g1.logs");
  await rig.sql("ALTER TABLE relog_g1.logs MODIFY SETTING parts_to_throw_insert = 2, parts_to_delay_insert = 1000");
  await waitFor("the refusal", async () => {
    await rig.produce(gateway.url, { batches: 1 });
    await sleep(300);
    return /too many parts/i.test(JSON.stringify((await rig.warnings(projector)).warnings)) ? true : undefined;
  });
  await rig.sql("ALTER TABLE relog_g1.logs RESET SETTING parts_to_throw_insert, parts_to_delay_insert");
  await rig.sql("SYSTEM START MERGES relog_g1.logs");
  await rig.assertInvariants();
  expect(await rig.deadLetters()).toEqual([]);
});

// What a quota drops is counted once, also when gateways are killed while they count and while they write gap records.

import { expect } from "vitest";
import { openGapPorts } from "../../cmd/parts/deferred.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { sleep, waitFor } from "../../lib/base/loop.ts";
import { sweepOnce } from "../../lib/deferred/gaps.ts";
import { Child } from "../../lib/devstack/child.ts";
import { freePort } from "../../lib/devstack/ports.ts";
import { decodeBatch } from "../../lib/event/decode.ts";
import { appender } from "../../lib/streams/append.ts";
import { readStream, streamState } from "../../lib/streams/read.ts";
import type { Rig } from "./kit.ts";
import { faultTest, rssBytes, scaled } from "./kit.ts";
import { APPEND, QuotaGateway, SHARDS } from "./over-quota-kit.ts";

interface Totals {
  gaps: number;
  records: number;
  calls: number;
  ids: Set<string>;
}

/** What the gap records in the LOGS streams say together; none may be there twice. */
async function totals(rig: Rig): Promise<Totals> {
  const nc = await rig.nats();
  const sum: Totals = { gaps: 0, records: 0, calls: 0, ids: new Set() };
  for (let shard = 0; shard < SHARDS; shard++) {
    const { lastSeq } = await streamState(nc, `LOGS_${shard}`);
    for (let next = 1; next <= lastSeq; ) {
      const { messages } = await readStream(nc, `LOGS_${shard}`, next, { messagesMax: 500, bytesMax: 2 ** 23 }, 5_000);
      for (const { payload } of messages) {
        const [record] = await decodeBatch(payload, 2 ** 20);
        expect(record!.event_name).toBe("relog.gap");
        expect(sum.ids.has(record!.batch)).toBe(false);
        sum.ids.add(record!.batch);
        const { number: records } = record!.attributes["gap.records"] as { number: string };
        const { number: calls } = record!.attributes["gap.calls"] as { number: string };
        sum.gaps++;
        sum.records += Number(records);
        sum.calls += Number(calls);
      }
      next += messages.length;
    }
  }
  return sum;
}

async function sweepAll(rig: Rig): Promise<void> {
  const nc = await rig.nats();
  const ports = openGapPorts(nc, SHARDS, appender(nc, APPEND), () => undefined, systemClock);
  const seen = new Map<string, { revision: number; sinceMs: number }>();
  await waitFor("every register to be closed", async () => {
    await sweepOnce(ports, seen, 0);
    return (await ports.keys()).length === 0 ? true : undefined;
  });
}

faultTest(
  "a gateway that drops is killed over and over: every answered drop is in exactly one gap record",
  async (rig) => {
    const port = await freePort();
    const { PATH, NATS_URL, NATS_USER, NATS_PASSWORD } = rig.stack.serviceEnv() as Record<string, string>;
    const env = { PATH: PATH!, NATS_URL: NATS_URL!, NATS_USER: NATS_USER!, NATS_PASSWORD: NATS_PASSWORD!, PORT: String(port) };
    const child = rig.use(new Child("drop-gateway", { command: process.execPath, args: ["test/fault/drop-gateway-child.ts"], env }));
    const url = `http://127.0.0.1:${port}/v1/ingest`;
    const up = () =>
      waitFor("the gateway", async () => ((await fetch(url).catch(() => undefined)) === undefined ? undefined : true), 30_000);
    child.start();
    await up();
    let [attempted, answered, calls] = [0, 0, 0];
    const ids = new Set<string>();
    const stop = new AbortController();
    const producer = async (n: number): Promise<void> => {
      while (!stop.signal.aborted) {
        const records = 1 + (n % 3);
        attempted += records;
        const body = '{"message":"m"}\n'.repeat(records);
        const answer = await fetch(url, { method: "POST", headers: { authorization: "Bearer acme" }, body }).catch(() => undefined);
        const json = (await answer?.json().catch(() => undefined)) as { id: string; dropped: { records: number } } | undefined;
        if (answer?.status !== 200 || json === undefined) {
          await sleep(rig.random.between(10, 50));
          continue;
        }
        expect(json.dropped.records).toBe(records);
        answered += records;
        calls++;
        ids.add(json.id);
      }
    };
    const producing = Promise.all(Array.from({ length: 20 }, (_, n) => producer(n)));
    for (let kill = 0; kill < scaled(4, 30); kill++) {
      const before = calls;
      await waitFor("answered drops", () => (calls > before + 60 ? true : undefined), 30_000, 5);
      await sleep(rig.random.between(0, 300));
      child.kill("SIGKILL");
      await child.exited;
      child.start();
      await up();
    }
    stop.abort();
    await producing;
    child.kill("SIGKILL");
    await child.exited;
    await sweepAll(rig);
    const sum = await totals(rig);
    expect(sum.records).toBeGreaterThanOrEqual(answered);
    expect(sum.records).toBeLessThanOrEqual(attempted);
    expect([...ids].filter((id) => !sum.ids.has(id))).toEqual([]);
    expect(sum.calls).toBeGreaterThanOrEqual(calls);
  },
  { clickhouse: false },
);

faultTest(
  "without faults the sums are equal, and a tenant that drops holds no memory",
  async (rig) => {
    const gateway = await QuotaGateway.open(rig.stack);
    let records = 0;
    {
      await using open = gateway;
      open.decision.is("drop");
      const body = `${JSON.stringify({ message: "x".repeat(1_000) })}\n`.repeat(100);
      const round = async (): Promise<void> => {
        await Promise.all(
          Array.from({ length: 200 }, async () => {
            const { json } = await open.post(body, undefined, "acme");
            records += json.dropped.records;
          }),
        );
        expect(open.admitted.held).toBe(0);
      };
      for (let i = 0; i < 3; i++) await round();
      const before = rssBytes(process.pid);
      for (let i = 0; i < scaled(10, 60); i++) await round();
      expect(rssBytes(process.pid) - before).toBeLessThan(150 * 2 ** 20);
    }
    // Leaving wrote everything: nothing is left to sweep.
    const sum = await totals(rig);
    expect(sum.records).toBe(records);
  },
  { clickhouse: false },
);

faultTest(
  "several sweepers at once close an abandoned gap once, also one that was half closed long ago",
  async (rig) => {
    const nc = await rig.nats();
    await using gateway = await QuotaGateway.open(rig.stack, { dedupeWindowMs: 100 });
    const ports = openGapPorts(gateway.nc, SHARDS, appender(gateway.nc, APPEND), () => undefined, systemClock);
    gateway.decision.is("drop");
    const { json } = await gateway.post('{"message":"m"}', undefined, "acme");
    const key = `gap.acme.${json.id}`;
    // Its record is appended and the closer dies before the register is gone.
    const left = (await ports.register(key).read())!;
    const closed = { ...left.value, closedMs: systemClock.now() - 120_000 };
    const dying = { ...ports, forget: () => Promise.reject(new Error("died")) };
    const seen = new Map<string, { revision: number; sinceMs: number }>();
    await waitFor("the closer to die", () =>
      sweepOnce(dying, seen, 0).then(
        () => undefined,
        () => true,
      ),
    );
    const half = (await ports.register(key).read())!;
    await ports.register(key).write(closed, half.revision);
    await waitFor("the register to be gone", async () => {
      await Promise.all([1, 2, 3].map(() => sweepOnce(ports, seen, 0)));
      return (await ports.keys()).length === 0 ? true : undefined;
    });
    expect(nc.isClosed()).toBe(false);
    expect(await totals(rig)).toMatchObject({ gaps: 1, records: 1, calls: 1 });
  },
  { clickhouse: false },
);

// Fault 3: three nodes of NATS, a leader, two, or all of them killed; fault 7: a full stream; expired plans.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import { streamState } from "../../lib/streams/read.ts";
import type { Rig } from "./kit.ts";
import { died, faultTest, scaled } from "./kit.ts";
import type { Receipt } from "./ledger.ts";

/** Index of the node that leads a shard's stream. */
async function leaderOf(rig: Rig, shard: number): Promise<number> {
  const nc = await rig.nats();
  return await waitFor("a stream leader", async () => {
    const manager = await nc.jetstreamManager({ checkAPI: false });
    const leader = (await manager.streams.info(STREAMS.logs(shard)).catch(() => undefined))?.cluster?.leader;
    return leader ? Number(leader.slice(1)) - 1 : undefined;
  });
}

const KILLS: readonly (readonly [name: string, victims: (leader: number) => number[]])[] = [
  ["the leader of a stream", (leader) => [leader]],
  ["two of three, the leader among them", (leader) => [leader, (leader + 1) % 3]],
  ["all three", () => [0, 1, 2]],
];

faultTest(
  "nodes are killed: nothing acknowledged is lost, and all comes back without hands",
  async (rig) => {
    const gateway = await rig.gateway();
    await rig.projector();
    for (const [name, victims] of Array.from({ length: scaled(1, 5) }, () => KILLS).flat()) {
      const stop = new AbortController();
      const producing = rig.produce(gateway.url, { batches: 1e9, days: 2, concurrency: 4, signal: stop.signal });
      const before = rig.ledger.of("acked").length;
      await waitFor(`acknowledgements before ${name} die`, () => (rig.ledger.of("acked").length > before + 20 ? true : undefined), 60_000);
      const killed = victims(await leaderOf(rig, 0)).map((index) => rig.stack.nats[index]!);
      for (const node of killed) node.kill("SIGKILL");
      await Promise.all(killed.map((node) => node.exited));
      if (killed.length === 1) {
        // Two of three go on by themselves.
        const then = rig.ledger.of("acked").length;
        await waitFor("acknowledgements without the leader", () => (rig.ledger.of("acked").length > then + 20 ? true : undefined), 60_000);
      }
      for (const node of killed) node.start();
      const then = rig.ledger.of("acked").length;
      await waitFor(
        `acknowledgements after ${name} came back`,
        () => (rig.ledger.of("acked").length > then + 20 ? true : undefined),
        60_000,
      );
      stop.abort();
      await producing;
      await rig.stack.ready();
    }
    expect(rig.ledger.of("refused")).toEqual([]);
    await rig.assertInvariants();
  },
  { natsNodes: 3, timeoutMs: scaled(180_000, 900_000) },
);

faultTest("a full stream refuses at once, loses nothing, and says what to do", async (rig) => {
  const gateway = await rig.gateway({ RELOG_STREAM_BYTES_MAX: "64KiB" });
  await rig.projector({ RELOG_STREAM_BYTES_MAX: "64KiB" });
  await waitFor("a refusal", async () => {
    await rig.produce(gateway.url, { batches: 4, records: 30, keyed: false });
    return rig.ledger.of("unknown").length > 0 ? true : undefined;
  });
  // Calls without a key go to any shard; one of them is full.
  const answer = await waitFor("a refusal to look at", async () => {
    const { body, markers } = rig.batch(30, 0, 20);
    const call = rig.ledger.open(undefined, markers);
    const answer = await fetch(`${gateway.url}/v1/ingest`, { method: "POST", headers: { authorization: `Bearer ${rig.key}` }, body });
    if (answer.ok) {
      call.outcome = "acked";
      call.receipt = (await answer.json()) as Receipt;
      return undefined;
    }
    call.outcome = "refused";
    call.answers.push(String(answer.status));
    return answer;
  });
  expect(answer.status).toBe(503);
  expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
  const { error } = (await answer.json()) as { error: Record<string, string> };
  expect(error).toMatchObject({ code: "stream_full", help: expect.stringContaining("RELOG_STREAM_BYTES_MAX") });
  for (const call of rig.ledger.of("unknown")) expect(call.answers[0]).toMatch(/^503 stream_full/);
  // They said no: what they carried must not turn up.
  for (const call of rig.ledger.of("unknown")) call.outcome = "refused";
  await rig.assertInvariants();
});

faultTest("age frees a full stream, and ingestion goes on", async (rig) => {
  const limits = { RELOG_STREAM_BYTES_MAX: "32KiB", RELOG_STREAM_AGE_MAX: "4s", RELOG_DEDUPE_WINDOW: "4s", RELOG_APPEND_TIMEOUT: "1s" };
  const gateway = await rig.gateway(limits);
  await rig.projector(limits);
  await waitFor("a refusal", async () => {
    await rig.produce(gateway.url, { batches: 4, records: 30, keyed: false });
    return rig.ledger.of("unknown").length > 0 ? true : undefined;
  });
  for (const call of rig.ledger.of("unknown")) call.outcome = "refused";
  await waitFor(
    "room",
    async () => {
      const { body, markers } = rig.batch(5, 0, 5);
      const call = await rig.send(gateway.url, body, rig.ledger.open(undefined, markers));
      if (call.outcome === "acked") return true;
      call.outcome = "refused";
      return undefined;
    },
    30_000,
    200,
  );
  await rig.assertInvariants();
});

faultTest("a plan whose messages have all expired is passed, and what comes later is projected", async (rig) => {
  const limits = { RELOG_STREAM_AGE_MAX: "3s", RELOG_DEDUPE_WINDOW: "3s", RELOG_APPEND_TIMEOUT: "500ms", RELOG_LEASE: "2s" };
  const gateway = await rig.gateway(limits);
  const first = await rig.projector({ ...limits, RELOG_FAILPOINT: "planned:1" });
  await rig.produce(gateway.url, { batches: 4 });
  await died(first);
  const nc = await rig.nats();
  await waitFor(
    "the streams to be empty",
    async () =>
      (await Promise.all([0, 1].map((shard) => streamState(nc, STREAMS.logs(shard))))).every((state) => state.messages === 0)
        ? true
        : undefined,
    30_000,
  );
  // They are lost, and that is said; see the metric of missing sequences.
  rig.ledger.calls.length = 0;
  const second = await rig.projector(limits);
  await rig.caughtUp(20_000);
  expect(
    (await (await fetch(`${second.url}/metrics`)).text()).match(/relog_projector_missing_sequences_total\{[^}]*\} [1-9]/),
  ).not.toBeNull();
  await rig.produce(gateway.url, { batches: 4 });
  await rig.assertInvariants();
  expect((await rig.warnings(second)).warnings).toEqual({});
});

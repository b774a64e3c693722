// Following a tenant's messages on a real server.

import type { NatsConnection } from "nats";
import { connect } from "nats";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { sleep, waitFor } from "../base/loop.ts";
import { startStack } from "../devstack/stack.ts";
import type { Followed } from "./tail.ts";
import { tailSource } from "./tail.ts";
import { reconcile, topology } from "./topology.ts";

const SETTINGS = {
  shards: 2,
  replicas: 1,
  streamBytesMax: 2 ** 26,
  streamAgeMaxMs: 86_400_000,
  deadLetterBytesMax: 2 ** 20,
  dedupeWindowMs: 1_000,
};
const stack = new AsyncDisposableStack();
let nc: NatsConnection;
beforeAll(async () => {
  const engines = stack.use(await startStack({ env: process.env, clickhouse: false }));
  nc = await connect({ servers: engines.natsUrl, user: engines.natsUser, pass: engines.natsPassword });
  stack.defer(() => nc.close());
});
beforeEach(async () => {
  await reconcile(nc, topology(SETTINGS));
});
afterAll(() => stack.disposeAsync());

const publish = (subject: string, payload: string | Uint8Array = "x") => nc.jetstream().publish(subject, payload);

/** Whether followers are cut off from the server. */
let cut = false;
const connection = (): NatsConnection => {
  if (cut) throw new Error("cut off");
  return nc;
};

/** Follows shard 0 beside the test. @param work what is done about each item */
async function following(tenant: string, from?: number, work: (item: Followed) => Promise<void> = () => Promise.resolve()) {
  const [seen, faults, stop] = [[] as Followed[], [] as (string | undefined)[], new AbortController()];
  const source = tailSource(connection, 2);
  const [head] = await source.heads();
  const ended = (async () => {
    const items = source.follow(tenant, 0, head!.created, from ?? head!.lastSeq + 1, (why) => faults.push(why), stop.signal);
    for await (const item of items) {
      seen.push(item);
      await work(item);
    }
  })();
  return {
    seen: seen as readonly Followed[],
    seqs: () => seen.flatMap((item) => (item.kind === "message" ? [item.message.seq] : [])),
    takenMs: () => seen.flatMap((item) => (item.kind === "message" ? [item.takenMs] : [])),
    kinds: () => seen.map(({ kind }) => kind),
    faults,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await ended;
    },
  };
}

it("gives one tenant's messages, each once and in order, over many reads, and nothing else", async () => {
  const before = (await publish("logs.0.acme")).seq;
  await using follower = await following("acme");
  const wanted: number[] = [];
  for (let i = 0; i < 300; i++) {
    const { seq } = await publish(`logs.0.${i % 3 === 0 ? "other" : "acme"}`, Buffer.alloc(i % 50 === 0 ? 300_000 : 100));
    if (i % 3 !== 0) wanted.push(seq);
    await publish("logs.1.acme");
  }
  await waitFor("all of them", () => (follower.seqs().length >= wanted.length ? true : undefined));
  expect(follower.seqs()).toEqual(wanted);
  await using earlier = await following("acme", before);
  await waitFor("all of them, from before", () => (earlier.seqs().length > wanted.length ? true : undefined));
  expect(earlier.seqs()).toEqual([before, ...wanted]);
  expect(follower.faults).toEqual([]);
});

it("says how long its reader took since it had everything, over several reads", async () => {
  const before = (await publish("logs.0.slow")).seq;
  for (let i = 0; i < 150; i++) await publish("logs.0.slow");
  let slow = true;
  await using follower = await following("slow", before, async () => {
    if (slow) await sleep(2);
  });
  await waitFor("all of them", () => (follower.seqs().length === 151 ? true : undefined));
  slow = false;
  const taken = follower.takenMs();
  expect(taken).toEqual(taken.toSorted((a, b) => a - b));
  expect(taken.at(-1)).toBeGreaterThan(150);
  // From here on only what the last read brought counts.
  await publish("logs.0.slow");
  await waitFor("one more", () => (follower.seqs().length === 152 ? true : undefined));
  expect(follower.takenMs().at(-1)).toBeLessThan(taken.at(-1)! / 2);
});

it("finds the first sequence of a time", async () => {
  const source = tailSource(() => nc, 2);
  await publish("logs.1.acme");
  const { seq } = await publish("logs.1.other");
  const manager = await nc.jetstreamManager();
  const stored = Date.parse((await manager.streams.getMessage("LOGS_1", { seq })).time.toISOString());
  expect(await source.seqAt(1, 0)).toBe(1);
  expect(await source.seqAt(1, stored)).toBeLessThanOrEqual(seq);
  expect(await source.seqAt(1, Date.now() + 3_600_000)).toBeUndefined();
});

it("goes on after a fault, and says first what the stream holds by then", async () => {
  await using follower = await following("away");
  await publish("logs.0.away");
  await waitFor("the first", () => (follower.seqs().length === 1 ? true : undefined));
  cut = true;
  const { seq } = await publish("logs.0.away");
  await waitFor("the fault to be told", () => (follower.faults.length > 1 ? true : undefined));
  cut = false;
  await waitFor("the second", () => (follower.seqs().length === 2 ? true : undefined));
  expect(follower.kinds()).toEqual(["message", "resumed", "message"]);
  expect(follower.seen[1]).toEqual({ kind: "resumed", lastSeq: seq });
  expect([follower.faults[0], follower.faults.at(-1)]).toEqual(["cut off", undefined]);
});

it("goes on with a stream that was made again, and says so", async () => {
  await publish("logs.0.acme");
  await using follower = await following("acme");
  const manager = await nc.jetstreamManager();
  await manager.streams.delete("LOGS_0");
  await reconcile(nc, topology(SETTINGS));
  expect((await publish("logs.0.acme")).seq).toBe(1);
  await waitFor("the message of the new stream", () => (follower.seqs().length === 1 ? true : undefined));
  expect([follower.kinds(), follower.seqs()]).toEqual([["made_again", "message"], [1]]);
});

it("one subscription serves all followers of a tenant, and goes with the last", async () => {
  const source = tailSource(() => nc, 2);
  const subscriptions = () => (nc as unknown as { protocol: { subscriptions: { size(): number } } }).protocol.subscriptions.size();
  const before = subscriptions();
  const stops = [new AbortController(), new AbortController()];
  const heads = await source.heads();
  const ended = stops.flatMap(({ signal }) =>
    [0, 1].map(async (shard) => {
      const items = source.follow("shared", shard, heads[shard]!.created, heads[shard]!.lastSeq + 1, () => undefined, signal);
      for await (const _ of items);
    }),
  );
  await waitFor("the subscription alone", () => (subscriptions() === before + 1 ? true : undefined));
  stops[0]!.abort();
  await Promise.all(ended.slice(0, 2));
  await waitFor("the subscription alone", () => (subscriptions() === before + 1 ? true : undefined));
  stops[1]!.abort();
  await Promise.all(ended);
  expect(subscriptions()).toBe(before);
});

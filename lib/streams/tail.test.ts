// Following a tenant's messages on a real server.

import type { NatsConnection } from "nats";
import { connect } from "nats";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { waitFor } from "../base/loop.ts";
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

/** Follows shard 0 beside the test. */
async function following(tenant: string, from?: number) {
  const [seen, faults, stop] = [[] as Followed[], [] as (string | undefined)[], new AbortController()];
  const source = tailSource(() => nc, 2);
  const [head] = await source.heads();
  const ended = (async () => {
    const items = source.follow(tenant, 0, head!.created, from ?? head!.lastSeq + 1, (why) => faults.push(why), stop.signal);
    for await (const item of items) seen.push(item);
  })();
  return {
    seqs: () => seen.flatMap((item) => (item.kind === "message" ? [item.message.seq] : [])),
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

// What a stream has stored already, asked of a real one.

import type { NatsConnection } from "nats";
import { headers } from "nats";
import { afterAll, beforeAll, expect, it } from "vitest";
import { HEADERS, STREAMS } from "../event/envelope.ts";
import { lastSeqOf, messageAt, partName, storedBehind, storedUnder } from "./stored.ts";
import { testStreams } from "./testing.ts";

const never = new AbortController().signal;
const stack = new AsyncDisposableStack();
let nc: NatsConnection;
beforeAll(async () => {
  nc = stack.use(await testStreams(100)).nc;
}, 60_000);
afterAll(() => stack.disposeAsync());

async function store(tenant: string, batch: string, part: string, id = `${tenant}:${batch}:${part}`): Promise<number> {
  const header = headers();
  for (const [name, value] of [
    [HEADERS.messageId, id],
    [HEADERS.batch, batch],
    [HEADERS.part, part],
  ] as const)
    header.set(name, value);
  return (await nc.jetstream().publish(`logs.0.${tenant}`, "x", { headers: header })).seq;
}

it("what is stored behind a sequence, of one tenant, past others' and past what was deleted", async () => {
  await store("acme", "before", "1/1");
  const seq = await lastSeqOf(nc, 0);
  await store("acme", "a", "1/2");
  await store("acme", "a", "2/2");
  const { streams } = await nc.jetstreamManager();
  for (let i = 0; i < 30; i++) await streams.deleteMessage(STREAMS.logs(0), await store("acme", `gone${i}`, "1/1"));
  await store("other", "b", "1/1");
  await store("acme", "c", "1/1");
  const wanted = new Set([partName("a", 2), partName("b", 1), partName("c", 1), partName("before", 1), partName("gone3", 1)]);
  expect(await storedBehind(nc, 0, "acme", wanted, seq, never)).toEqual(new Set([partName("a", 2), partName("c", 1)]));
  expect((await storedBehind(nc, 0, "acme", wanted, 0, never)).has(partName("before", 1))).toBe(true);
  expect(await storedBehind(nc, 0, "acme", wanted, await lastSeqOf(nc, 0), never)).toEqual(new Set());
  // A stream that was made again is shorter than what is remembered of it.
  expect(await storedBehind(nc, 0, "acme", wanted, 1_000_000, never)).toEqual(new Set());
});

it("what is stored under an id between two times, each time it was", async () => {
  const at = async (seq: number): Promise<number> => (await messageAt(nc, STREAMS.logs(0), seq))!.storedMs;
  const first = await store("acme", "one", "1/1", "acme:key:k:1");
  let second = first;
  while (second === first) second = await store("acme", "two", "1/1", "acme:key:k:1");
  await store("other", "three", "1/1", "acme:key:k:1");
  const ids = new Set(["acme:key:k:1", "acme:key:none:1"]);
  const under = async (fromMs: number, toMs: number): Promise<[string, string[]][]> =>
    [...(await storedUnder(nc, 0, "acme", ids, fromMs, toMs))].map(([id, found]) => [id, found.map(({ header }) => header(HEADERS.batch))]);
  const [firstMs, secondMs] = [await at(first), await at(second)];
  expect(await under(firstMs - 1, secondMs + 1)).toEqual([["acme:key:k:1", ["one", "two"]]]);
  expect(await under(firstMs - 1, firstMs + 1)).toEqual([["acme:key:k:1", ["one"]]]);
  expect(await under(secondMs - 1, secondMs + 1_000)).toEqual([["acme:key:k:1", ["two"]]]);
  expect(await under(firstMs - 60_000, firstMs - 1_000)).toEqual([]);
  expect(await messageAt(nc, STREAMS.logs(0), 1_000_000)).toBeUndefined();
});

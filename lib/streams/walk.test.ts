// Walking real streams: in order, whole, and with a reason for whatever is not there.

import type { NatsConnection } from "nats";
import { headers } from "nats";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS, STREAMS } from "../event/envelope.ts";
import { parker } from "./dead.ts";
import { testStreams } from "./testing.ts";
import type { Letter, Walked } from "./walk.ts";
import { liveLog, walkLetters, walkStream } from "./walk.ts";

const STREAM = STREAMS.logs(0);
const MESSAGES = 5_000;
const signal = new AbortController().signal;
const stack = new AsyncDisposableStack();
let nc: NatsConnection;
beforeAll(async () => {
  nc = stack.use(await testStreams(600_000)).nc;
  const jetstream = nc.jetstream();
  for (let at = 0; at < MESSAGES; at += 500)
    await Promise.all(
      Array.from({ length: 500 }, () => {
        const header = headers();
        header.set(HEADERS.batch, "b");
        return jetstream.publish("logs.0.acme", Buffer.alloc(2_000, "x"), { headers: header });
      }),
    );
}, 60_000);
afterAll(() => stack.disposeAsync());

async function all(from: number, to: number): Promise<Walked[]> {
  const items: Walked[] = [];
  for await (const item of walkStream(nc, STREAM, from, to, signal)) items.push(item);
  return items;
}
const short = (items: readonly Walked[]): string =>
  items
    .map((item) => (item.kind === "message" ? [item.seq, item.seq] : [-item.from, -item.to]))
    .reduce<number[][]>((runs, [from, to]) => {
      const last = runs.at(-1);
      if (last !== undefined && from! > 0 && last[1] === from! - 1) last[1] = to!;
      else runs.push([from!, to!]);
      return runs;
    }, [])
    .map(([from, to]) => (from! < 0 ? `gone ${-from!}-${-to!}` : `${from}-${to}`))
    .join(", ");

const delivered = async (): Promise<number> => (await (await nc.jetstreamManager()).streams.info(STREAM)).state.consumer_count;

it("every sequence of a range, in order, and no consumer is left behind", async () => {
  const items = await all(1, MESSAGES);
  expect(short(items)).toBe(`1-${MESSAGES}`);
  expect(items[0]).toMatchObject({ kind: "message", subject: "logs.0.acme", storedMs: expect.closeTo(Date.now(), -5) });
  expect(items[0]?.kind === "message" && [items[0].header(HEADERS.batch), items[0].header("none")]).toEqual(["b", ""]);
  expect(short(await all(100, 2_345))).toBe("100-2345");
  expect(short(await all(7, 7))).toBe("7-7");
  expect(await all(7, 6)).toEqual([]);
  for await (const item of walkStream(nc, STREAM, 1, MESSAGES, signal)) if (item.kind === "message" && item.seq === 3) break;
  expect(await delivered()).toBe(0);
});

it("holes are asked of the leader, and say why", async () => {
  const { streams } = await nc.jetstreamManager();
  for (const seq of [20, 21, 22, 1_000, MESSAGES - 1, MESSAGES]) await streams.deleteMessage(STREAM, seq);
  const items = await all(1, MESSAGES);
  const end = MESSAGES - 1;
  expect(short(items)).toBe(`1-19, gone 20-22, 23-999, gone 1000-1000, 1001-${end - 1}, gone ${end}-${MESSAGES}`);
  expect(items.flatMap((item) => (item.kind === "gone" ? [item.evidence] : []))).toEqual(
    Array(3).fill(expect.stringContaining("one by one")),
  );
  expect(short(await all(21, 21))).toBe("gone 21-21");
  await streams.purge(STREAM, { seq: 11 });
  const [first] = await all(1, 15);
  expect(first).toMatchObject({ kind: "gone", from: 1, to: 10, evidence: expect.stringContaining("begins at 11") });
  expect(short(await all(1, 15))).toBe("gone 1-10, 11-15");
});

it("a live log knows its spans and payloads", async () => {
  const log = liveLog(nc);
  const [span] = await log.spans(0);
  expect(span).toMatchObject({ from: 1, to: MESSAGES });
  expect(Buffer.from((await log.payload(0, span!.created, 30))!).toString()).toBe("x".repeat(2_000));
  expect(await log.payload(0, span!.created, 1)).toBeUndefined();
});

it("an aborted walk ends", async () => {
  const abort = new AbortController();
  await expect(
    (async () => {
      for await (const item of walkStream(nc, STREAM, 11, MESSAGES, abort.signal))
        if (item.kind === "message" && item.seq > 100) abort.abort();
    })(),
  ).rejects.toThrow(/abort/i);
  expect(await delivered()).toBe(0);
});

it("dead letters of one site and generation", async () => {
  const message = (seq: number): StoredMessage => ({
    seq,
    subject: "logs.0.acme",
    payload: Buffer.from("frame"),
    header: (name) => (name === HEADERS.batch ? "b" : ""),
    pairs: () => [],
    storedMs: 0,
  });
  const request = { tenant: "acme", reason: "record_refused", detail: "", frame: undefined };
  const many = Array.from({ length: 200 }, (_, i) => i).join(",");
  await parker(nc, "main", 1, 0)({ ...request, message: message(5), lines: "all" });
  await parker(nc, "main", 2, 0)({ ...request, message: message(6), lines: "1,2" });
  await parker(nc, "main", 1, 0)({ ...request, message: message(7), lines: many });
  const letters: Letter[] = [];
  for await (const letter of walkLetters(nc, "main", 1, signal)) letters.push(letter);
  expect(letters).toMatchObject([
    { stream: STREAM, originSeq: 5, batch: "b", lines: "all", whole: true, reason: "record_refused" },
    { originSeq: 7, whole: false },
  ]);
  expect(Buffer.from((await letters[1]!.payload())!).toString()).toBe("frame");
});

// Following a real stream: order, holes, streams that begin later, are emptied or made again, consumers that are lost.

import type { JetStreamManager, NatsConnection } from "nats";
import { connect, headers } from "nats";
import { afterAll, beforeAll, expect, it } from "vitest";
import { waitFor } from "../base/loop.ts";
import type { Stack } from "../devstack/stack.ts";
import { startStack } from "../devstack/stack.ts";
import type { FollowFrom } from "./follow-headers.ts";
import { followHeaders } from "./follow-headers.ts";
import { streamState } from "./read.ts";

const stack = new AsyncDisposableStack();
let engines: Stack;
let nc: NatsConnection;
let manager: JetStreamManager;
beforeAll(async () => {
  engines = stack.use(await startStack({ env: process.env, clickhouse: false }));
  nc = await connect({
    servers: engines.natsUrl,
    user: engines.natsUser,
    pass: engines.natsPassword,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 50,
    noAsyncTraces: true,
  });
  stack.defer(() => nc.close());
  manager = await nc.jetstreamManager();
});
afterAll(() => stack.disposeAsync());

let streams = 0;
async function newStream(): Promise<string> {
  const name = `S${streams++}`;
  await manager.streams.add({ name, subjects: [`${name}.>`], allow_direct: true });
  return name;
}

async function publish(stream: string, count: number): Promise<void> {
  const jetstream = nc.jetstream();
  for (let i = 0; i < count; i++) {
    const header = headers();
    header.set("n", String(i));
    await jetstream.publish(`${stream}.a`, "payload", { headers: header });
  }
}

function follow(stream: string, from: FollowFrom) {
  const seen: string[] = [];
  const stop = new AbortController();
  const ended = followHeaders(
    nc,
    stream,
    from,
    {
      begun: ({ next, lastSeq }) => seen.push(`begun ${next} of ${lastSeq}`),
      message: ({ seq, storedMs, header }) =>
        seen.push(`${seq}:${header("n")}${Math.abs(storedMs - Date.now()) < 600_000 ? "" : " stored when?"}`),
      gone: (a, b) => seen.push(`gone ${a}-${b}`),
      fault: (why) => seen.push(...(why === undefined ? [] : ["fault"])),
    },
    stop.signal,
  );
  const until = (last: string) =>
    waitFor(last, () => (seen.at(-1) === last ? true : undefined)).catch((error: unknown) => {
      throw new Error(`${(error as Error).message}: ${seen.slice(-20).join(", ")}`);
    });
  return {
    seen,
    until,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await ended;
    },
  };
}

const createdOf = async (stream: string): Promise<string> => (await streamState(nc, stream)).created;

it("what is there and what comes, in order, more than one request of it", async () => {
  const stream = await newStream();
  await publish(stream, 3);
  await using following = follow(stream, { created: await createdOf(stream), next: 2 });
  await following.until("3:2");
  await publish(stream, 2_500);
  await following.until("2503:2499");
  expect(following.seen).toEqual(["begun 2 of 3", "2:1", "3:2", ...Array.from({ length: 2_500 }, (_, i) => `${i + 4}:${i}`)]);
  const consumers = await manager.consumers.list(stream).next();
  expect(consumers).toHaveLength(1);
});

it("from a time on: the first message stored since then, or the end", async () => {
  const stream = await newStream();
  await using empty = follow(stream, { sinceMs: Date.now() - 60_000 });
  await empty.until("begun 1 of 0");
  await publish(stream, 2);
  await empty.until("2:1");
  await using all = follow(stream, { sinceMs: Date.now() - 3_600_000 });
  await all.until("2:1");
  await using later = follow(stream, { sinceMs: Date.now() + 60_000 });
  await later.until("begun 3 of 2");
  expect(all.seen).toEqual(["begun 1 of 2", "1:0", "2:1"]);
});

it("what is gone is said, before, between and at the end, and nothing else is", async () => {
  const stream = await newStream();
  await publish(stream, 9);
  const created = await createdOf(stream);
  await manager.streams.purge(stream, { seq: 3 });
  for (const seq of [5, 6, 9]) await manager.streams.deleteMessage(stream, seq);
  await using following = follow(stream, { created, next: 1 });
  await using end = follow(stream, { created, next: 9 });
  await following.until("8:7");
  await end.until("gone 9-9");
  await publish(stream, 1);
  await following.until("10:0");
  await end.until("10:0");
  expect(following.seen).toEqual(["begun 1 of 9", "gone 1-2", "3:2", "4:3", "gone 5-6", "7:6", "8:7", "gone 9-9", "10:0"]);
  await manager.streams.purge(stream);
  await using purged = follow(stream, { created, next: 4 });
  await purged.until("gone 4-10");
});

it("a stream that is made again is followed from its beginning; until it is there that is a fault", async () => {
  const stream = await newStream();
  await publish(stream, 3);
  await using following = follow(stream, { created: await createdOf(stream), next: 1 });
  await following.until("3:2");
  await manager.streams.delete(stream);
  await following.until("fault");
  await manager.streams.add({ name: stream, subjects: [`${stream}.>`], allow_direct: true });
  await publish(stream, 1);
  await following.until("1:0");
  expect(following.seen.filter((one) => one.startsWith("begun"))).toEqual(["begun 1 of 3", expect.stringMatching(/^begun 1 of [01]$/)]);
});

it("a position behind the stream's end is not waited for", async () => {
  const stream = await newStream();
  await publish(stream, 2);
  await using following = follow(stream, { created: await createdOf(stream), next: 9 });
  await following.until("begun 3 of 2");
  await publish(stream, 1);
  await following.until("3:0");
});

it("lost consumers and servers that are killed skip nothing", async () => {
  const stream = await newStream();
  await using following = follow(stream, { created: await createdOf(stream), next: 1 });
  await publish(stream, 5);
  await following.until("5:4");
  for await (const { name } of manager.consumers.list(stream)) await manager.consumers.delete(stream, name);
  await publish(stream, 5);
  await following.until("10:4");
  const [server] = engines.nats;
  server!.kill("SIGKILL");
  await waitFor("its end", () => (server!.running ? undefined : true));
  server!.start();
  await engines.ready();
  await waitFor("a publish", () =>
    publish(stream, 1).then(
      () => true,
      () => undefined,
    ),
  );
  await waitFor("the last", async () =>
    following.seen.at(-1)?.startsWith(`${(await streamState(nc, stream)).lastSeq}:`) ? true : undefined,
  );
  const seqs = following.seen.flatMap((one) => (/^\d/.test(one) ? [Number.parseInt(one, 10)] : []));
  expect(seqs).toEqual(seqs.map((_, i) => i + 1));
  expect(seqs.length).toBeGreaterThan(10);
});

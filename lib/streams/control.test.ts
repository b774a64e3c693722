// The accounts in CONTROL on a real server: compare-and-set, reading, following, reading back.

import type { NatsConnection } from "nats";
import { connect } from "nats";
import { afterAll, beforeAll, expect, it } from "vitest";
import { sleep, waitFor } from "../base/loop.ts";
import { startStack } from "../devstack/stack.ts";
import { newBatchId } from "../event/ids.ts";
import { accountOf, accountsReader, appendAccount, readControlBack } from "./control.ts";
import { recordOperation } from "./operations.ts";
import { streamState } from "./read.ts";
import { reconcile, topology } from "./topology.ts";

const SETTINGS = {
  shards: 1,
  replicas: 1,
  streamBytesMax: 2 ** 20,
  streamAgeMaxMs: 86_400_000,
  deadLetterBytesMax: 2 ** 20,
  dedupeWindowMs: 600_000,
};
const stack = new AsyncDisposableStack();
let nc: NatsConnection;
let other: NatsConnection;
beforeAll(async () => {
  const engines = stack.use(await startStack({ env: process.env, clickhouse: false }));
  const options = { servers: engines.natsUrl, user: engines.natsUser, pass: engines.natsPassword };
  [nc, other] = [await connect(options), await connect(options)];
  stack.defer(() => Promise.all([nc.close(), other.close()]).then(() => undefined));
});
afterAll(() => stack.disposeAsync());

const id = (): string => newBatchId(Date.now());

it("a reader of a stream that is not there yet says so; one that follows takes it when it is", async () => {
  const seen: number[] = [];
  const reader = accountsReader(nc, ({ seq }) => seen.push(seq));
  await expect(reader.toEnd()).rejects.toMatchObject({ code: "stream_unavailable" });
  const [faults, stop] = [[] as (string | undefined)[], new AbortController()];
  const following = accountsReader(other, ({ seq }) => seen.push(seq)).follow((why) => faults.push(why), stop.signal);
  await waitFor("a fault", () => (faults.length > 0 ? true : undefined));
  expect(faults[0]).toMatch(/accounts cannot be read/);
  await reconcile(nc, topology(SETTINGS));
  await waitFor("the stream", () => (faults.at(-1) === undefined ? true : undefined));
  stop.abort();
  await following;
  expect(seen).toEqual([]);
});

it("of two writers that know the same, one is refused; a repetition is stored once", async () => {
  const [first, second] = [id(), id()];
  const outcomes = await Promise.all([appendAccount(nc, "acme", { a: 1 }, first, 0), appendAccount(other, "acme", { a: 2 }, second, 0)]);
  expect(outcomes.toSorted()).toEqual(["refused", "stored"]);
  const won = outcomes[0] === "stored" ? first : second;
  // Whatever the server checks first: it is not there twice.
  expect(["stored", "refused"]).toContain(await appendAccount(nc, "acme", { a: 1 }, won, 0));
  expect(await appendAccount(nc, "beta", {}, id(), 0)).toBe("stored");
  expect((await streamState(nc, "CONTROL")).messages).toBe(2);
});

it("an answer that is lost with a server holds a follower up for a moment only, and is no fault yet", async () => {
  const [seen, said, stop] = [[] as number[], [] as (string | undefined)[], new AbortController()];
  let [lose, lost] = [0, 0];
  const lossy = new Proxy(other, {
    get(target, name) {
      if (name === "publish") {
        return (...all: Parameters<NatsConnection["publish"]>) => {
          if (lose === 0 || !all[0].startsWith("$JS.API.DIRECT.GET")) return target.publish(...all);
          [lose, lost] = [lose - 1, lost + 1];
        };
      }
      const value = Reflect.get(target, name) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const following = accountsReader(lossy, ({ seq }) => seen.push(seq)).follow((why) => said.push(why), stop.signal);
  await waitFor("what is there", () => (seen.length === 2 ? true : undefined));
  for (const [i, tenant] of ["delta", "epsilon"].entries()) {
    lose = 1;
    expect(await appendAccount(nc, tenant, {}, id(), 0)).toBe("stored");
    await waitFor("the change", () => (seen.length === 3 + i ? true : undefined), 3_000);
  }
  stop.abort();
  await following;
  expect([lost, said.filter((why) => why !== undefined)]).toEqual([2, []]);
});

it("what else is stored between a hint and its message does not end the looking for it", async () => {
  const [seen, stop] = [[] as number[], new AbortController()];
  let hint = (): void => undefined;
  const deaf = new Proxy(other, {
    get(target, name) {
      if (name === "subscribe") {
        return (...[subject, options]: Parameters<NatsConnection["subscribe"]>) => {
          if (!subject.startsWith("control.accounts.")) return target.subscribe(subject, options);
          hint = () => void options?.callback?.(null, undefined as never);
          return target.subscribe("nothing");
        };
      }
      const value = Reflect.get(target, name) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const following = accountsReader(deaf, ({ seq }) => seen.push(seq)).follow(() => undefined, stop.signal);
  await waitFor("what is there", () => (seen.length === 4 ? true : undefined));
  await recordOperation(nc, { what: "noise", who: "me", where: "here" });
  hint();
  await sleep(30);
  expect(await appendAccount(nc, "zeta", {}, id(), 0)).toBe("stored");
  // Sooner than the next look without a hint.
  await waitFor("the change", () => (seen.length === 5 ? true : undefined), 800, 1);
  stop.abort();
  await following;
});

it("a follower has a change within milliseconds, in order, once, and none of what is not about accounts", async () => {
  const [seen, stop] = [[] as { seq: number; at: number }[], new AbortController()];
  const following = accountsReader(other, ({ seq }) => seen.push({ seq, at: performance.now() })).follow(() => undefined, stop.signal);
  await waitFor("what is there", () => (seen.length === 5 ? true : undefined));
  const delays: number[] = [];
  for (let last = 0, i = 0; i < 20; i++) {
    await recordOperation(nc, { what: "noise", who: "me", where: "here" });
    expect(await appendAccount(nc, "gamma", { i }, id(), last)).toBe("stored");
    const stored = performance.now();
    last = (await streamState(nc, "CONTROL")).lastSeq;
    await waitFor("the change", () => (seen.at(-1)?.seq === last ? true : undefined), 5_000, 1);
    delays.push(seen.at(-1)!.at - stored);
  }
  stop.abort();
  await following;
  const seqs = seen.map(({ seq }) => seq);
  expect([seqs, seqs.length]).toEqual([[...new Set(seqs)].sort((a, b) => a - b), 25]);
  expect(Math.max(...delays)).toBeLessThan(900);
});

it("reading back gives every message, newest first, page by page", async () => {
  const { lastSeq } = await streamState(nc, "CONTROL");
  const seqs: number[] = [];
  const about: (string | undefined)[] = [];
  let before: number | undefined;
  do {
    const page = await readControlBack(nc, before, 7);
    seqs.push(...page.messages.map(({ seq }) => seq));
    about.push(...page.messages.map(({ subject }) => accountOf(subject)));
    before = page.before;
  } while (before !== undefined);
  expect(seqs).toEqual(Array.from({ length: lastSeq }, (_, i) => lastSeq - i));
  expect([about.filter((tenant) => tenant === "gamma").length, about.filter((tenant) => tenant === undefined).length]).toEqual([20, 21]);
  expect((await readControlBack(nc, 1, 7)).messages).toEqual([]);
});

it("a stream that was made again is not taken for the first one", async () => {
  const seen: number[] = [];
  const reader = accountsReader(nc, ({ seq }) => seen.push(seq));
  await reader.toEnd();
  const before = seen.length;
  const manager = await nc.jetstreamManager();
  await manager.streams.delete("CONTROL");
  await reconcile(nc, topology(SETTINGS));
  await expect(reader.toEnd()).rejects.toThrow(/made again/);
  expect(seen.length).toBe(before);
});

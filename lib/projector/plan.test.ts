// Given a stream and a checkpoint: what a plan holds, who owns the shard, and until when an insert may run.

import { zstdCompressSync } from "node:zlib";
import { expect, it } from "vitest";
import type { Clock } from "../base/clock.ts";
import { DAY_NS } from "../base/clock.ts";
import { readSettings } from "../base/config.ts";
import type { Enveloped, StoredMessage } from "../event/envelope.ts";
import { envelopeHeaders, HEADERS } from "../event/envelope.ts";
import { frameContentSize } from "../event/frame.ts";
import type { Register } from "../streams/cas.ts";
import { acquire, LeaseLost } from "../streams/lease.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { mayRelease } from "./checkpoint.ts";
import type { ReadStream } from "./gather.ts";
import { Gatherer, gatherSettings } from "./gather.ts";
import { judge } from "./message.ts";
import { siteOf } from "./site.ts";

/** Goes on by `stepMs` whenever it is asked. */
function fakeClock(stepMs = 0): Clock & { ms: number } {
  return {
    ms: 1_000_000,
    now: () => 0,
    monotonicMs() {
      this.ms += stepMs;
      return this.ms;
    },
  };
}

interface Given {
  readonly records?: number;
  readonly days?: readonly [bigint, bigint];
  readonly payload?: Uint8Array;
  readonly subject?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

function message(
  seq: number,
  { records = 10, days = [1n, 1n], payload = frame(10_000), subject = "logs.0.acme", headers = {} }: Given = {},
): StoredMessage {
  const times = { minTimestamp: days[0] * DAY_NS, maxTimestamp: days[1] * DAY_NS };
  const counts = { part: 1, parts: 1, firstLine: 0, records, accepted: records, rejected: 0, bytes: 1 };
  const envelope: Enveloped = {
    schema: 1,
    tenant: "acme",
    batch: "01JGFJJZ008XQVG3S7J5X9TN4W",
    ...counts,
    ...times,
    source: "",
    bodyHash: "",
  };
  const all = new Map([...envelopeHeaders(envelope, "x"), ...Object.entries(headers)]);
  return { seq, subject, payload, header: (name) => all.get(name) ?? "", pairs: () => [...all], storedMs: 0 };
}

const frame = (size: number): Buffer => zstdCompressSync(Buffer.alloc(size), { pledgedSrcSize: size });
const withSize = (size: number): Buffer => {
  const head = Buffer.from("28b52ffde0000000000000000000", "hex");
  head.writeBigUInt64LE(BigInt(size), 5);
  return head;
};

it.each<[string, Given, string | undefined]>([
  ["a good one", {}, undefined],
  ["no headers", { headers: { [HEADERS.schema]: "" } }, "envelope_invalid"],
  ["a part that is none", { headers: { [HEADERS.part]: "1" } }, "envelope_invalid"],
  ["no batch", { headers: { [HEADERS.batch]: "" } }, "envelope_invalid"],
  ["a count that is no number", { headers: { [HEADERS.records]: "-1" } }, "envelope_invalid"],
  ["a time that is no number", { headers: { [HEADERS.minTimestamp]: "now" } }, "envelope_invalid"],
  ["no records", { records: 0 }, "envelope_invalid"],
  ["a schema of tomorrow", { headers: { [HEADERS.schema]: "2" } }, "schema_unknown"],
  ["another tenant's subject", { subject: "logs.0.other" }, "tenant_mismatch"],
  ["no payload", { payload: Buffer.alloc(0) }, "frame_invalid"],
  ["a payload that is no frame", { payload: Buffer.from("no frame at all") }, "frame_invalid"],
  ["a frame of 100 GB", { payload: withSize(1e11) }, "frame_too_large"],
])("judging %s", (_, given, reason) => {
  const verdict = judge(message(1, given));
  expect(verdict.kind === "poison" ? verdict.reason : undefined).toBe(reason);
});

it("the content size of a frame is read whatever its width", () => {
  for (const size of [0, 1, 100, 255, 256, 257, 1000, 65_535, 65_791, 65_792, 1_000_000, 20_000_000])
    expect(frameContentSize(frame(size))).toBe(size);
  expect(frameContentSize(withSize(2 ** 40))).toBe(2 ** 40);
  const unknown = Buffer.from(frame(1000));
  unknown[4] = 0;
  expect(frameContentSize(unknown)).toBeUndefined();
});

// FOUND: a frame whose head is cut behind a dictionary id makes frameContentSize, and so judge(), throw, and the shard stands still.
it("a frame that ends in its head is none", () => {
  for (let descriptor = 0; descriptor < 256; descriptor++) {
    for (let length = 5; length < 18; length++)
      frameContentSize(Buffer.concat([Buffer.from("28b52ffd", "hex"), Buffer.of(descriptor), Buffer.alloc(length - 5)]));
  }
});

const SETTINGS = {
  ...readSettings(gatherSettings, {}, () => ""),
  planRecordsMax: 100,
  planRecordsEnough: 50,
  planBytesMax: 2_000,
  planPartitionsMax: 3,
  lingerMs: 30,
  pollMs: 1,
};

/** Reads at most `atOnce` messages of a stream that may have a hole. */
function reader(messages: readonly StoredMessage[], atOnce = 4): ReadStream {
  return async (from) => {
    const rest = messages.filter(({ seq }) => seq >= from);
    if (rest.length > 0 && rest[0]!.seq > from) return { messages: [], pending: rest.length, missing: { from, to: rest[0]!.seq - 1 } };
    let end = 0;
    while (end < Math.min(atOnce, rest.length) && rest[end]!.seq === from + end) end++;
    return { messages: rest.slice(0, end), pending: rest.length - end, missing: undefined };
  };
}

const counted = (count: number, given: (i: number) => Given = () => ({})): StoredMessage[] =>
  Array.from({ length: count }, (_, i) => message(i + 1, given(i)));

it.each<[string, StoredMessage[], number[]]>([
  ["small ones until there is enough", counted(20), [8, 8, 4]],
  ["no more records than allowed", counted(4, () => ({ records: 45 })), [2, 2]],
  ["one that is too large alone goes alone", counted(3, (i) => ({ records: i === 1 ? 500 : 1, payload: frame(30_000) })), [1, 1, 1]],
  ["no more bytes than allowed", counted(3, () => ({ records: 1, payload: Buffer.concat([frame(10_000), Buffer.alloc(900)]) })), [2, 1]],
  ["no more days than allowed", counted(5, (i) => ({ records: 1, days: [BigInt(i), BigInt(i)] })), [3, 2]],
  ["a first one over many days goes alone", counted(2, (i) => ({ records: 1, days: i === 0 ? [0n, 9n] : [20n, 20n] })), [1, 1]],
  ["poison takes no room", counted(6, (i) => (i % 2 === 0 ? { records: 50 } : { subject: "logs.0.other" })), [4, 2]],
])("a plan holds %s", async (_, messages, wanted) => {
  const gatherer = new Gatherer(reader(messages), judge, SETTINGS, fakeClock(10));
  const sizes: number[] = [];
  for (let from = 1; from <= messages.length; ) {
    // Nothing within the idle time: ask again.
    const gathered = await gatherer.next(from, 1000, AbortSignal.timeout(5_000));
    if (gathered === undefined) continue;
    const { verdicts } = gathered;
    expect(verdicts.map(({ seq }) => seq)).toEqual(verdicts.map((_, i) => from + i));
    from += verdicts.length;
    sizes.push(verdicts.length);
  }
  expect(sizes).toEqual(wanted);
});

// FOUND: what was held from the call before starts no linger of its own: it waits the whole idle time and is then dropped and read again.
it("messages that did not fit are the next plan, without waiting for more", async () => {
  const gatherer = new Gatherer(
    reader(counted(2, () => ({ records: 40, payload: Buffer.concat([frame(10_000), Buffer.alloc(1_500)]) }))),
    judge,
    SETTINGS,
    fakeClock(10),
  );
  expect((await gatherer.next(1, 1000, AbortSignal.timeout(5_000)))?.verdicts.length).toBe(1);
  expect((await gatherer.next(2, 1000, AbortSignal.timeout(5_000)))?.verdicts.length).toBe(1);
});

it("a gatherer stops before a hole and says it next", async () => {
  const gatherer = new Gatherer(reader([message(1), message(2), message(6)]), judge, SETTINGS, fakeClock(10));
  const first = await gatherer.next(1, 1000, new AbortController().signal);
  expect([first?.verdicts.length, first?.missing]).toEqual([2, undefined]);
  expect(await gatherer.next(3, 1000, new AbortController().signal)).toEqual({ verdicts: [], missing: { from: 3, to: 5 } });
});

it("a gatherer gives up when nothing comes, and when it is told to", async () => {
  expect(await new Gatherer(reader([]), judge, SETTINGS, fakeClock(10)).next(1, 100, new AbortController().signal)).toBeUndefined();
  expect(await new Gatherer(reader([message(1)]), judge, SETTINGS, fakeClock()).next(1, 1e9, AbortSignal.abort())).toBeUndefined();
});

/** A register in memory; `fault` says what goes wrong with a write. */
function memory() {
  let entry: { value: Checkpoint; revision: number } | undefined;
  const state = { fault: undefined as "before" | "after" | undefined };
  const register: Register<Checkpoint> = {
    read: async () => entry,
    async write(value, revision) {
      const fault = state.fault;
      state.fault = undefined;
      if (fault === "before") throw new Error("timeout");
      if ((entry?.revision ?? 0) !== revision) return undefined;
      entry = { value, revision: revision + 1 };
      if (fault === "after") throw new Error("timeout");
      return revision + 1;
    },
  };
  return { register, state, entry: () => entry };
}

const FRESH: Checkpoint = { next: 7, plan: null, owner: "", stream: "then", writes: 0 };
const take = (register: Register<Checkpoint>, clock: Clock, owner: string, signal = AbortSignal.timeout(5_000)) =>
  acquire({ register, clock, owner, leaseMs: 60_000, mayRelease }, async () => FRESH, signal);
const PLAN = { from: 7, to: 9, token: "t" };

it("the first one makes the checkpoint, a released one is taken at once", async () => {
  const { register, entry } = memory();
  const clock = fakeClock();
  const a = (await take(register, clock, "a"))!;
  expect(a.value).toMatchObject({ next: 7, owner: "a", stream: "then" });
  expect(a.deadline).toBe(clock.ms + 60_000);
  await a.change({ plan: PLAN });
  await a.change({ next: 10, plan: null });
  await a[Symbol.asyncDispose]();
  expect(entry()!.value).toMatchObject({ next: 10, plan: null, owner: "" });
  await using b = (await take(register, clock, "b"))!;
  expect(b.value).toMatchObject({ next: 10, owner: "b" });
});

it("a silent owner is replaced after the lease by the newcomer's clock, and then cannot write", async () => {
  const { register, entry } = memory();
  await using a = (await take(register, fakeClock(), "a"))!;
  await a.change({ plan: PLAN });
  await using b = (await take(register, fakeClock(61_000), "b"))!;
  expect(b.value).toMatchObject({ owner: "b", plan: PLAN });
  await expect(a.change({ next: 10, plan: null })).rejects.toThrow(LeaseLost);
  await expect(a.change({})).rejects.toThrow(LeaseLost);
  expect(entry()!.value).toMatchObject({ next: 7, owner: "b" });
});

it("a living owner keeps its checkpoint", async () => {
  const { register } = memory();
  await using _ = (await take(register, fakeClock(), "a"))!;
  expect(await take(register, fakeClock(), "b", AbortSignal.abort())).toBeUndefined();
});

it("a write that was not made can be made again; one whose answer was lost ends the claim, not the checkpoint", async () => {
  const { register, state, entry } = memory();
  await using a = (await take(register, fakeClock(), "a"))!;
  state.fault = "before";
  await expect(a.change({ next: 8 })).rejects.toThrow("timeout");
  await a.change({ next: 8 });
  state.fault = "after";
  await expect(a.change({ next: 9 })).rejects.toThrow("timeout");
  await expect(a.change({ next: 10 })).rejects.toThrow(LeaseLost);
  expect(entry()!.value.next).toBe(9);
});

function site(clock: Clock) {
  const fences: number[] = [];
  const store = {
    async insert({ fenceMs }: { fenceMs: number }) {
      fences.push(fenceMs);
      return { kind: "stored" as const };
    },
    presence: async () => new Map<string, number[]>(),
    kill: async () => undefined,
    timeMs: async () => 5_000_000,
  };
  return { store, fences, make: siteOf(store, "d", clock) };
}

const INSERT = { token: "t", attempt: 0, frames: [], records: 0 };

it("an insert's fence is the engine's time at the lease's end, less a margin, or sooner", async () => {
  const clock = fakeClock();
  const { make, fences } = site(clock);
  let deadline = clock.ms + 4_000;
  const port = make(() => deadline);
  await port.insert(INSERT);
  clock.ms += 500;
  await port.insert(INSERT);
  deadline += 100_000;
  await port.insert(INSERT);
  expect(fences.slice(0, 2)).toEqual([5_003_000, 5_003_000]);
  expect(fences[2]).toBeLessThanOrEqual(5_000_000 + 103_000);
  expect(fences[2]).toBeGreaterThan(5_003_000);
});

it("an insert is not sent when the lease is about to end, or when the engine's time cannot be had", async () => {
  const clock = fakeClock();
  const { make, fences, store } = site(clock);
  expect(await make(() => clock.ms + 900).insert(INSERT)).toMatchObject({ kind: "fenced" });
  store.timeMs = async () => Promise.reject(new Error("down"));
  expect(await siteOf(store, "d", clock)(() => clock.ms + 9_000).insert(INSERT)).toMatchObject({ kind: "busy", message: "down" });
  expect(fences).toEqual([]);
});

// Recomputing usage: real blocks in a log in memory, and figures of a table that a test makes right or wrong.

import { beforeEach, expect, it } from "vitest";
import { BatchBuilder, encodeBlock } from "../event/batch.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { envelopeHeaders } from "../event/envelope.ts";
import { newBatchId } from "../event/ids.ts";
import { RecordDraft } from "../event/record.ts";
import type { StoredFigures } from "../store/usage.ts";
import { QUARTER_MS } from "../store/usage.ts";
import { formatUsageVerification } from "./format.ts";
import type { Span } from "./log.ts";
import { measure } from "./measure.ts";
import type { UsageRange, UsageVerification, UsageVerifyPorts } from "./verify.ts";
import { verifyUsage } from "./verify.ts";

const T0 = Date.parse("2026-03-02T10:00:00Z");
const HOUR = 3_600_000;
const signal = new AbortController().signal;

interface Sent {
  readonly tenant?: string;
  readonly services: readonly string[];
  readonly atMs?: number;
  readonly storedMs?: number;
  readonly timeMs?: number;
}

let spans: Span[];
let messages: Map<string, StoredMessage>;
let parked: Map<number, "all" | ReadonlySet<number>>;
let rows: StoredFigures[];
/** Records older than this, by their own time, are not kept. */
let keptForMs: number;
let removed: Set<string>;

beforeEach(() => {
  [messages, parked, rows, removed, keptForMs] = [new Map(), new Map(), [], new Set(), Number.POSITIVE_INFINITY];
  spans = [{ created: new Date(T0 - 10 * HOUR).toISOString(), from: 1, to: 0 }];
});

/** Appends a message of records with a body of three bytes each to the newest stream. */
async function send({ tenant = "acme", services, atMs = T0, storedMs = atMs, timeMs = atMs }: Sent): Promise<void> {
  const [builder, draft] = [new BatchBuilder(), new RecordDraft()];
  for (const service of services) {
    draft.clear();
    draft.seconds = Math.floor(timeMs / 1_000);
    [draft.service, draft.body] = [Buffer.from(service).toString("latin1"), "abc"];
    builder.add(draft);
  }
  const batch = newBatchId(atMs);
  const { minTimestamp, maxTimestamp } = { minTimestamp: BigInt(timeMs) * 1_000_000n, maxTimestamp: BigInt(timeMs) * 1_000_000n };
  const block = builder.finish(tenant, batch, atMs, 0);
  const records = services.length;
  const facts = { schema: 1, tenant, batch, part: 1, parts: 1, firstLine: 0, records, accepted: records, rejected: 0, bytes: 1 };
  const headers = new Map(envelopeHeaders({ ...facts, minTimestamp, maxTimestamp, source: "test", bodyHash: "" }, batch));
  append(tenant, await encodeBlock(block), storedMs, (name) => headers.get(name) ?? "");
}

function append(tenant: string, payload: Uint8Array, storedMs: number, header: (name: string) => string): void {
  const span = spans.at(-1)!;
  const seq = span.to + 1;
  spans[spans.length - 1] = { ...span, to: seq };
  messages.set(`${span.created} ${seq}`, { seq, subject: `logs.0.${tenant}`, payload, storedMs, header, pairs: () => [] });
}

const row = (service: string, closed: number, live = closed, at = 0, tenant = "acme"): StoredFigures => {
  const figures = (records: number) => ({ records, bytes: records * (3 + Buffer.byteLength(service)) });
  return { tenant, quarterMs: T0 + at * QUARTER_MS, service, closed: figures(closed), live: figures(live) };
};

async function verify(range: Partial<UsageRange> = {}): Promise<UsageVerification> {
  const ports: UsageVerifyPorts = {
    log: {
      shards: 1,
      spans: async () => spans,
      async read(_shard, created, from, { messagesMax }) {
        const all = [...messages.entries()].filter(([key]) => key.startsWith(`${created} `)).map(([, message]) => message);
        const behind = all.filter(({ seq }) => seq >= from).sort((a, b) => a.seq - b.seq);
        if (behind[0] !== undefined && behind[0].seq > from) return { messages: [], missing: { to: behind[0].seq - 1 } };
        const end = behind.findIndex(({ seq }, i) => seq !== from + i);
        return { messages: behind.slice(0, Math.min(messagesMax, end < 0 ? behind.length : end)), missing: undefined };
      },
    },
    parked: (_shard, seq) => parked.get(seq),
    expired: (_tenant, timestampNs, atMs) => Number(timestampNs / 1_000_000n) < atMs - keptForMs,
    removed: (tenant) => removed.has(tenant),
    stored: async (sinceMs, untilMs) => rows.filter(({ quarterMs }) => quarterMs >= sinceMs && quarterMs < untilMs),
    pace: async () => undefined,
    nowMs: () => T0 + 20 * HOUR,
  };
  const whole = { sinceMs: T0 - 9 * HOUR, untilMs: T0 + 9 * HOUR, closedUntilMs: T0 + 9 * HOUR, tenant: undefined };
  return await verifyUsage(ports, { ...whole, ...range }, signal);
}

const found = ({ differences }: UsageVerification): string[] =>
  differences.map(
    ({ where, tenant, quarterMs, service, log, table }) =>
      `${where} ${tenant} ${(quarterMs - T0) / QUARTER_MS} ${service} ${log.records} ${table.records}`,
  );

it("measures records as they were built", async () => {
  await send({ services: ["a", "zürich", ""] });
  const { records, services, sizes, lines, observed } = await measure([...messages.values()][0]!.payload);
  expect([records, [...services], Array.from(sizes), Array.from(lines), observed[0]]).toEqual([
    3,
    ["a", "zürich", ""],
    [4, 10, 3],
    [0, 1, 2],
    BigInt(T0) * 1_000_000n,
  ]);
  await expect(measure(Buffer.from("no block"))).rejects.toThrow();
});

it("is equal when all is there, in any order of what was stored", async () => {
  await send({ services: ["a", "a", "b c"], storedMs: T0 + 1_000 });
  await send({ services: ["a"], atMs: T0 + QUARTER_MS });
  await send({ services: ["a"], atMs: T0 - 1, storedMs: T0 + QUARTER_MS + 1_000 });
  rows = [row("a", 2), row("b c", 1), row("a", 1, 1, 1), row("a", 1, 1, -1)];
  const result = await verify();
  expect(found(result)).toEqual([]);
  expect(result).toMatchObject({ ok: true, totals: { records: 5, groups: 4, messages: 3 }, leftOut: [] });
  expect(formatUsageVerification(result)).toMatch(/5 records, 22 bytes, 4 figures compared\nEQUAL\n$/);
});

it.each<[string, () => void, string[]]>([
  ["a closed figure that is smaller", () => (rows[0] = row("a", 1, 2)), ["closed acme 0 a 2 1"]],
  ["a closed figure that is larger", () => (rows[0] = row("a", 3, 2)), ["closed acme 0 a 2 3"]],
  ["closed bytes alone", () => (rows[0] = { ...rows[0]!, closed: { records: 2, bytes: 9 } }), ["closed acme 0 a 2 2"]],
  ["a live figure", () => (rows[0] = row("a", 2, 1)), ["live acme 0 a 2 1"]],
  ["rows that are missing", () => rows.shift(), ["closed acme 0 a 2 0", "live acme 0 a 2 0"]],
  ["rows that the log knows nothing of", () => rows.push(row("x", 4)), ["closed acme 0 x 0 4", "live acme 0 x 0 4"]],
  ["rows of a tenant that sent nothing", () => rows.push(row("a", 1, 0, 0, "zeta")), ["closed zeta 0 a 0 1"]],
  ["a message that cannot be read", () => append("acme", Buffer.from("x"), T0, () => ""), []],
])("finds %s", async (_, damage, expected) => {
  await send({ services: ["a", "a", "b"] });
  rows = [row("a", 2), row("b", 1)];
  expect((await verify()).ok).toBe(true);
  damage();
  const result = await verify();
  expect(found(result).sort()).toEqual(expected);
  expect(result.ok).toBe(false);
  expect(formatUsageVerification(result)).toContain(
    expected.length === 0 ? "1 messages cannot be read" : `DIFFERENT: ${expected.length} of`,
  );
});

it("leaves out what is parked: messages, and lines of them", async () => {
  await send({ services: ["a", "b", "b"] });
  await send({ services: ["a"] });
  append("acme", Buffer.from("x"), T0, () => "");
  parked = new Map<number, "all" | ReadonlySet<number>>([
    [1, new Set([1])],
    [2, "all"],
    [3, "all"],
  ]);
  rows = [row("a", 1), row("b", 1)];
  expect(await verify()).toMatchObject({ ok: true, totals: { records: 2 } });
});

it("only one tenant, and only the time that is asked for", async () => {
  await send({ services: ["a"] });
  await send({ tenant: "zeta", services: ["a"] });
  await send({ services: ["a"], atMs: T0 + 2 * QUARTER_MS });
  rows = [row("a", 1)];
  const range = { tenant: "acme", sinceMs: T0, untilMs: T0 + QUARTER_MS };
  expect(await verify(range)).toMatchObject({ ok: true, totals: { records: 1, messages: 2 } });
  // What is not closed yet is what is counted until then.
  rows = [row("a", 0, 1)];
  expect((await verify(range)).ok).toBe(false);
  expect((await verify({ ...range, closedUntilMs: T0 })).ok).toBe(true);
});

it("services that are counted with the rest are compared with the rest", async () => {
  await send({ services: ["a", "b", "c", "c"] });
  const rest = { ...row("(other)", 3), closed: { records: 3, bytes: 12 }, live: { records: 3, bytes: 12 } };
  rows = [row("a", 1), rest];
  expect(await verify()).toMatchObject({ ok: true, totals: { groups: 2, records: 4 } });
});

it("records that have left the tables are in what is closed; those that were too old when they came may be", async () => {
  await send({ services: ["a", "a"] });
  await send({ services: ["a"], timeMs: T0 - 30 * HOUR });
  keptForMs = 19 * HOUR;
  for (const [closed, live, differences] of [
    [2, 0, []],
    [3, 3, []],
    [1, 0, ["closed acme 0 a 2 1"]],
    [4, 0, ["closed acme 0 a 2 4"]],
  ] as const) {
    rows = [row("a", closed, live)];
    expect(found(await verify())).toEqual(differences);
  }
  keptForMs = 25 * HOUR;
  rows = [row("a", 2, 1)];
  expect(found(await verify())).toEqual(["live acme 0 a 2 1"]);
  removed.add("acme");
  expect(found(await verify())).toEqual([]);
});

it("of a deleted tenant less may be counted than it sent, never more; and its messages need not be readable", async () => {
  await send({ services: ["a", "a"] });
  append("acme", Buffer.from("no block"), T0, () => "");
  removed.add("acme");
  for (const [closed, live, differences] of [
    [2, 0, []],
    [1, 0, []],
    [0, 0, []],
    [3, 0, ["closed acme 0 a 2 3"]],
    [2, 3, ["live acme 0 a 2 3"]],
  ] as const) {
    rows = [row("a", closed, live)];
    const result = await verify();
    expect([found(result), result.unreadable]).toEqual([differences, 0]);
  }
  append("other", Buffer.from("no block"), T0, () => "");
  expect((await verify()).unreadable).toBe(1);
});

it("what the log does not hold any more is said and left out, and the rest is compared", async () => {
  for (let i = 0; i < 12; i++) await send({ services: ["a"], atMs: T0 + i * QUARTER_MS });
  rows = Array.from({ length: 12 }, (_, i) => row("a", i === 5 ? 7 : 1, 1, i));
  expect(found(await verify())).toEqual(["closed acme 5 a 1 7"]);
  messages.delete(`${spans[0]!.created} 6`);
  const result = await verify();
  expect(result.ok).toBe(true);
  expect(result.leftOut).toEqual([{ fromMs: T0 + 3 * QUARTER_MS, toMs: T0 + 7 * QUARTER_MS }]);
  expect(formatUsageVerification(result)).toContain("left out: 2026-03-02T10:45Z to 2026-03-02T11:45Z");
  // The stream let go of its beginning, and then of everything.
  for (let i = 1; i <= 4; i++) messages.delete(`${spans[0]!.created} ${i}`);
  expect((await verify()).leftOut[0]).toEqual({ fromMs: T0, toMs: T0 + 7 * QUARTER_MS });
  messages.clear();
  expect(await verify()).toMatchObject({ ok: true, totals: { groups: 0 } });
});

it("an earlier stream counts, what lay between it and the next does not", async () => {
  await send({ services: ["a"], atMs: T0 });
  spans.push({ created: new Date(T0 + 2 * QUARTER_MS + 60_000).toISOString(), from: 1, to: 0 });
  await send({ services: ["a"], atMs: T0 + 4 * QUARTER_MS });
  rows = [row("a", 9, 9, 1), row("a", 1, 1, 4)];
  expect(await verify()).toMatchObject({ ok: true, leftOut: [{ fromMs: T0, toMs: T0 + 2 * QUARTER_MS }], totals: { records: 1 } });
  // Before the first stream there was another installation.
  rows.push(row("a", 5, 5, -39));
  expect((await verify({ sinceMs: T0 - 24 * HOUR })).leftOut[0]).toEqual({ fromMs: T0 - 24 * HOUR, toMs: T0 - 10 * HOUR });
});

it("a record that was stored long after it was observed is a finding, not a wrong sum", async () => {
  await send({ services: ["a"], atMs: T0 });
  await send({ services: ["a"], atMs: T0 + 3 * HOUR });
  await send({ services: ["a"], atMs: T0, storedMs: T0 + 3 * HOUR });
  rows = [row("a", 1), row("a", 1, 1, 12)];
  expect(found(await verify())).toEqual(["late acme 0 a 1 0"]);
});

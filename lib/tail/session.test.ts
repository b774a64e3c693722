// What a tail waits for and what it skips; the stream is made up, because it is late.

import { expect, test } from "vitest";
import { systemClock } from "../base/clock.ts";
import { sleep } from "../base/loop.ts";
import { createTelemetry } from "../base/telemetry.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { envelopeHeaders, SUBJECTS } from "../event/envelope.ts";
import { frameOf } from "../event/testing.ts";
import type { Followed, TailSource } from "../streams/tail.ts";
import { tagOf } from "./cursor.ts";
import { readTailRequest } from "./filter.ts";
import type { TailLimits } from "./limits.ts";
import { TailSession } from "./session.ts";

const BATCH = "01JGFJJZ008XQVG3S7J5X9TN4W";
const CREATED = "2026-01-02T03:04:05Z";
const RECORDS = 10;
const MESSAGES = 10;
const LATE_MS = 60_000;
const LIMITS: TailLimits = {
  queueRecordsMax: 1_000,
  queueBytesMax: 2 ** 20,
  lagMaxMs: LATE_MS / 2,
  recordsPerSecond: 5_000,
  openedPerSecond: 5_000,
  blockBytesMax: 2 ** 20,
  keepAliveMs: 60_000,
  stallMs: 60_000,
  lifeMaxMs: 60_000,
};

function message(seq: number, payload: Uint8Array, storedMs: number): StoredMessage {
  const counts = { part: 0, parts: 1, firstLine: 0, records: RECORDS, accepted: RECORDS, rejected: 0, bytes: payload.length };
  const times = { minTimestamp: 1n, maxTimestamp: 1n };
  const pairs = envelopeHeaders({ schema: 1, tenant: "acme", batch: BATCH, ...counts, ...times, source: "t", bodyHash: "" }, BATCH);
  const header = (name: string): string => pairs.find(([one]) => one === name)?.[1] ?? "";
  return { seq, subject: SUBJECTS.logs(0, "acme"), payload, header, pairs: () => pairs, storedMs };
}

interface Given {
  readonly limits?: Partial<TailLimits>;
  readonly query?: string;
  /** How long ago the messages were stored, milliseconds. */
  readonly ageMs?: number;
  /** How much of that the tail itself took. */
  readonly takenMs?: number;
  /** What comes before them. */
  readonly first?: readonly Followed[];
}

/** Sends all messages to a reader that takes what is there each few milliseconds. */
async function tailed({ limits, query = "", ageMs = 0, takenMs = 0, first = [] }: Given) {
  const payload = await frameOf("acme", BATCH, [...Array(RECORDS).keys()], 1_800_000_000);
  const head = { created: CREATED, firstSeq: 1, lastSeq: 0 };
  async function* follow(): ReturnType<TailSource["follow"]> {
    yield* first;
    for (let seq = 1; seq <= MESSAGES; seq++) yield { kind: "message", message: message(seq, payload, Date.now() - ageMs), takenMs };
  }
  const never = (): never => expect.unreachable();
  const all = { ...LIMITS, ...limits };
  const reasons = new Map<string, number>();
  const ports = {
    source: { heads: never, seqAt: never, follow },
    clock: systemClock,
    log: createTelemetry("test", "silent", false).log,
    openedPerSecond: () => all.openedPerSecond,
    sent: () => undefined,
    skipped: (reason: string, records: number) => void reasons.set(reason, (reasons.get(reason) ?? 0) + records),
  };
  const request = readTailRequest(new URLSearchParams(query), Date.now());
  const start = { heads: [head], places: [{ tag: tagOf(CREATED), seq: 1, line: 0 }], gaps: [] };
  const session = new TailSession(ports, all, "acme", request, start, true);
  const stop = new AbortController();
  let [came, said, over] = [0, 0, false];
  const take = (): void => {
    for (const entry of session.queue.take(2 ** 20)) {
      if (entry.kind === "record") came++;
      else if (entry.kind === "skipped") said += entry.skipped.skipped + entry.skipped.unread;
    }
  };
  const ran = session.run([head], stop.signal).finally(() => {
    over = true;
  });
  while (!over) {
    await sleep(2);
    take();
  }
  await ran;
  take();
  expect(came + said).toBe(RECORDS * MESSAGES);
  return { came, reasons: [...reasons.keys()] };
}

const SMALL = { queueRecordsMax: 4 };
const ALL = { came: RECORDS * MESSAGES, reasons: [] };
const resumed: Followed = { kind: "resumed", lastSeq: MESSAGES };

test.each<[string, Given]>([
  ["what its reader is too slow for at once", { limits: SMALL }],
  ["what the stream gave late", { limits: SMALL, ageMs: LATE_MS }],
  ["what was stored while the stream could not be read", { limits: SMALL, ageMs: LATE_MS, takenMs: LATE_MS, first: [resumed] }],
  ["what one tail may not send at once", { limits: { recordsPerSecond: 80 } }],
  ["what may not be opened at once", { limits: { openedPerSecond: 80 } }],
])("waits for %s", async (_, given) => {
  expect(await tailed(given)).toEqual(ALL);
});

test.each<[string, string, Given]>([
  ["what its reader left too long", "slow_reader", { limits: SMALL, ageMs: LATE_MS, takenMs: LATE_MS }],
  ["what is over the rate and old", "rate", { limits: { recordsPerSecond: 4 }, ageMs: LATE_MS, takenMs: LATE_MS }],
  ["what may not be opened and is old", "unopened", { limits: { openedPerSecond: 15 }, ageMs: LATE_MS, takenMs: LATE_MS }],
  ["what is over the rate that the tail asked for", "rate", { query: "limit_per_second=4" }],
])("skips %s", async (_, reason, given) => {
  const { came, reasons } = await tailed(given);
  expect(came).toBeLessThan(RECORDS * MESSAGES);
  expect(came).toBeGreaterThan(0);
  expect(reasons).toContain(reason);
});

// The parts of a live tail that need no engines.

import { expect, it, test } from "vitest";
import type { CanonicalRecord } from "../event/record.ts";
import { readCursor, tagOf, writeCursor } from "./cursor.ts";
import { recordLine, timeText } from "./encode.ts";
import { readTailRequest } from "./filter.ts";
import { chooseTailFormat } from "./format.ts";
import { TailQueue } from "./queue.ts";
import { Rate } from "./rate.ts";
import { processSlots, slotsOfAll } from "./slots.ts";

const RECORD: CanonicalRecord = {
  timestamp: "1767323045123456789",
  observed_timestamp: "1767323045123456789",
  severity_number: 13,
  severity_text: "WARN",
  service: "api",
  host: "h1",
  event_name: "",
  body: "Request FAILED: größe 世界",
  attributes: { user: { number: "7" }, big: { number: "12345678901234567890.10" }, ok: true, name: "x", list: { json: '[1,\n"a\\n"]' } },
  resource: {},
  trace_id: "",
  span_id: "",
  batch: "01JGK00000000000000000TEST",
  line: 3,
};
const NOW_MS = Date.UTC(2026, 0, 2);
const asked = (query: string) => readTailRequest(new URLSearchParams(query), NOW_MS);

test.each<[string, boolean]>([
  ["", true],
  ["service=api", true],
  ["service=ap", false],
  ["service=API", false],
  ["host=h1", true],
  ["host=h2", false],
  ["level=trace", true],
  ["level=warn", true],
  ["level=WARNING", true],
  ["level=warn3", true],
  ["level=error", false],
  ["contains=failed", true],
  ["contains=GRÖSSE", false],
  ["contains=GRÖßE", true],
  ["contains=世", true],
  ["contains=f.*d", false],
  ["attribute.user=7", true],
  ["attribute.user=7.0", true],
  ["attribute.user=8", false],
  ["attribute.user=", false],
  ["attribute.big=12345678901234567890.10", true],
  ["attribute.ok=true", true],
  ["attribute.ok=1", false],
  ["attribute.name=x", true],
  ["attribute.toString=x", false],
  ["attribute.__proto__=x", false],
  ["service=api&level=warn&contains=failed&attribute.user=7", true],
  ["service=api&level=warn&contains=failed&attribute.user=8", false],
])("%s wants it: %s", (query, wanted) => {
  if (query.endsWith("=")) expect(() => asked(query)).toThrow("it needs a value");
  else expect(asked(query).wants(RECORD)).toBe(wanted);
});

it("a record of unknown level is below every level", () => {
  expect(asked("level=trace").wants({ ...RECORD, severity_number: 0 })).toBe(false);
});

test.each<[string, number | undefined]>([
  ["service=api", undefined],
  ["since=5m", NOW_MS - 300_000],
  ["since=2026-01-01T00:00:00.5Z", NOW_MS - 86_400_000 + 500],
  ["since=2026-01-01T01:00:00%2B01:00", NOW_MS - 86_400_000],
])("%s begins at %s", (query, sinceMs) => {
  expect(asked(query).sinceMs).toBe(sinceMs);
});

test.each<[string, RegExp]>([
  ["nonsense=1", /there are service, level, host, contains, attribute\.<name>, since, limit_per_second/],
  ["attribute.=1", /there is no parameter/],
  ["level=7x", /expected trace, debug, info, warn, error, fatal/],
  ["service=a&service=b", /it may be given once/],
  ["since=12", /RFC 3339/],
  ["since=2026-02-30T00:00:00Z", /RFC 3339/],
  ["limit_per_second=1e3", /whole number/],
  [`contains=${"x".repeat(1_025)}`, /at most 1024 characters/],
  [Array.from({ length: 17 }, (_, i) => `attribute.a${i}=1`).join("&"), /at most 16 filters/],
])("%s is refused", (query, text) => {
  expect(() => asked(query)).toThrow(text);
});

it("a record is one line, with every digit and type", () => {
  const line = recordLine(RECORD);
  expect(line).not.toMatch(/[\r\n]/);
  expect(line).toContain('"big":12345678901234567890.10,');
  expect(JSON.parse(line)).toMatchObject({
    time: "2026-01-02T03:04:05.123456789Z",
    level: "warn",
    message: RECORD.body,
    attributes: { user: 7, ok: true, name: "x", list: [1, "a\n"] },
    line: 3,
  });
  const odd = { ...RECORD, attributes: { a: { number: "NaN" }, b: { json: '{"a":' }, '"': "\u2028" } };
  expect(JSON.parse(recordLine(odd)).attributes).toEqual({ a: "NaN", b: '{"a":', '"': "\u2028" });
  expect([timeText("0"), timeText("5"), timeText("9223372035999999999")]).toEqual([
    "1970-01-01T00:00:00.000000000Z",
    "1970-01-01T00:00:00.000000005Z",
    "2262-04-11T23:47:15.999999999Z",
  ]);
});

it("a cursor is read back, and anything else is none", () => {
  const places = [
    { tag: tagOf("2026-01-02T03:04:05Z"), seq: 1, line: 0 },
    { tag: tagOf("x"), seq: Number.MAX_SAFE_INTEGER, line: 0xffff_ffff },
  ];
  expect(readCursor(writeCursor(places))).toEqual(places);
  for (const text of ["", "v1", "v1~", "v2~a-1-0", "v1~a-0-0", "v1~a-1", "v1~a-zzzzzzzzzzz-0", "v1~A-1-0", `v1${"~a-1-0".repeat(2_000)}`])
    expect([text.slice(0, 20), readCursor(text)]).toEqual([text.slice(0, 20), undefined]);
});

const BOUNDS = { queueRecordsMax: 3, queueBytesMax: 10_000 };
const shown = (queue: TailQueue) =>
  queue.take(1e9).map((entry) => (entry.kind === "record" ? entry.text : entry.kind === "note" ? entry.event : entry.skipped));

it("a queue takes no more than its records, and says in its place what was skipped", () => {
  const queue = new TailQueue(BOUNDS);
  expect(["a", "b", "c", "d"].map((text) => queue.offer(text, ""))).toEqual([true, true, true, false]);
  expect(queue.full).toBe(true);
  queue.skip({ skipped: 1 });
  queue.skip({ unread: 5 });
  expect(queue.size).toBe(3);
  queue.take(1);
  queue.take(1);
  expect(queue.offer("e", "")).toBe(true);
  expect(shown(queue)).toEqual(["c", { skipped: 1, unread: 5 }, "e"]);
  queue.skip({ skipped: 2 });
  expect([queue.waiting, shown(queue), queue.waiting, queue.bytes]).toEqual([true, [{ skipped: 2, unread: 0 }], false, 0]);
});

it("a queue takes no more than its bytes, but always one entry", () => {
  const queue = new TailQueue(BOUNDS);
  expect(queue.offer("x".repeat(20_000), "")).toBe(true);
  expect([queue.full, queue.offer("y", "")]).toEqual([true, false]);
  queue.take(1);
  const texts = ["世".repeat(3_000), "世".repeat(3_000), "z"];
  // What came later must not pass what found no room.
  expect([texts.map((text) => queue.offer(text, "")), queue.full]).toEqual([[true, false, false], true]);
  queue.take(1);
  expect([queue.full, queue.offer("z", "")]).toEqual([false, true]);
});

it("the last word of a queue; what waits goes before it, or not at all", async () => {
  const [kept, dropped] = [new TailQueue(BOUNDS), new TailQueue(BOUNDS)];
  for (const queue of [kept, dropped]) queue.offer("a", "");
  kept.close("end", {}, false);
  dropped.close("error", {}, true);
  for (const queue of [kept, dropped]) {
    expect(queue.offer("b", "")).toBe(false);
    await queue.taken();
    await queue.filled();
  }
  expect([shown(kept), shown(dropped)]).toEqual([["a", "end"], ["error"]]);
});

it("who waits for a queue is woken", async () => {
  const queue = new TailQueue(BOUNDS);
  const filled = queue.filled();
  queue.offer("a", "");
  await filled;
  const taken = queue.taken();
  queue.take(1);
  await taken;
  const ended = queue.filled();
  queue.end();
  await ended;
});

it("a rate lets a second's worth through at once, then as much as time brings", () => {
  let nowMs = 0;
  let perSecond = 10;
  const rate = new Rate({ monotonicMs: () => nowMs }, () => perSecond);
  const passed = () => Array.from({ length: 100 }, () => rate.tryTake(1)).filter(Boolean).length;
  expect([passed(), rate.waitMs()]).toEqual([10, 100]);
  nowMs += 250;
  expect(passed()).toBe(2);
  nowMs += 60_000;
  expect(passed()).toBe(10);
  nowMs += 1_000;
  // A large amount passes whole, and is waited for afterwards.
  expect([rate.tryTake(50), rate.tryTake(1), rate.waitMs()]).toEqual([true, false, 4_100]);
  nowMs += rate.waitMs();
  expect([rate.tryTake(1), rate.tryTake(1)]).toEqual([true, false]);
  perSecond = 0.5;
  nowMs += 10_000;
  expect([rate.tryTake(1), rate.tryTake(1), rate.waitMs()]).toEqual([true, false, 2_000]);
});

it("places: a tenant's share, the process's bound, both or none, given back once", () => {
  const principal = (tenant: string) => ({ tenant, keyId: "k", scopes: [] });
  const slots = processSlots({ tailsMax: 3, tailsPerTenant: 2 });
  const [a, b] = [slots(principal("a")), slots(principal("a"))];
  expect(() => slots(principal("a"))).toThrow(
    expect.objectContaining({ code: "too_many_tails", message: expect.stringContaining("PER_TENANT") }),
  );
  slots(principal("b"));
  expect(() => slots(principal("c"))).toThrow(
    expect.objectContaining({ code: "too_many_tails", message: expect.stringContaining("RELOG_TAILS_MAX") }),
  );
  a[Symbol.dispose]();
  a[Symbol.dispose]();
  const both = slotsOfAll(slots, () => {
    throw new Error("no");
  });
  expect(() => both(principal("c"))).toThrow("no");
  slots(principal("c"));
  expect(() => slots(principal("c"))).toThrow("RELOG_TAILS_MAX");
  b[Symbol.dispose]();
});

test.each<[string | undefined, string | undefined]>([
  [undefined, "application/x-ndjson"],
  ["*/*", "application/x-ndjson"],
  ["application/x-ndjson", "application/x-ndjson"],
  ["text/event-stream", "text/event-stream"],
  ["text/event-stream;q=1, */*;q=0.1", "text/event-stream"],
  ["text/csv", undefined],
])("Accept %s gives %s", (accept, type) => {
  if (type === undefined) expect(() => chooseTailFormat(accept)).toThrow(/application\/x-ndjson or text\/event-stream/);
  else expect(chooseTailFormat(accept).contentType).toBe(`${type}; charset=utf-8`);
});

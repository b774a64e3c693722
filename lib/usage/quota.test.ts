// Verdicts and warnings with a clock that the test moves.

import { expect, it } from "vitest";
import { Meter } from "./meter.ts";
import type { Terms } from "./quota.ts";
import { QuotaDecider } from "./quota.ts";
import type { QuotaWarning } from "./warnings.ts";
import { Warnings } from "./warnings.ts";
import { Calendars } from "./windows.ts";

const ms = (text: string): number => Date.parse(text);

function world(at: string, terms: Terms) {
  const clock = { ms: ms(at), now: () => clock.ms };
  const calendars = new Calendars();
  const meter = new Meter(1, calendars, () => terms.time_zone ?? "UTC", clock.now);
  const decider = new QuotaDecider(meter, calendars, clock.now);
  meter.begin(0, "c", 1);
  meter.ready = true;
  decider.set("acme", terms);
  const use = (records: number, size = records * 100) =>
    meter.fold(0, meter.position(0).next, { tenant: "acme", records, size, observedMs: clock.ms });
  return { clock, calendars, meter, decider, use };
}

it.each<[name: string, terms: Terms, used: [records: number, size: number], expected: object]>([
  ["no quota", {}, [1e9, 1e9], { kind: "within" }],
  ["only a mode and a zone", { over_quota: "drop", time_zone: "Asia/Tokyo" }, [1e9, 1e9], { kind: "within" }],
  ["less than the quota", { records_per_day: 10 }, [9, 0], { kind: "within" }],
  [
    "the quota",
    { records_per_day: 10 },
    [10, 0],
    {
      kind: "reject",
      reason: "records_per_day (10) is used up until 2026-11-26T00:00:00+00:00",
      retryAfterS: 3_600,
      details: { quota: "records_per_day", limit: 10, used: 10, until: "2026-11-26T00:00:00+00:00" },
    },
  ],
  ["bytes of a day", { bytes_per_day: 1_000, over_quota: "drop" }, [1, 1_001], { kind: "drop", details: { quota: "bytes_per_day" } }],
  [
    "a month, in its own zone",
    { records_per_month: 5, over_quota: "defer", time_zone: "America/New_York" },
    [7, 0],
    { kind: "defer", retryAfterS: (5 * 24 + 6) * 3_600, details: { used: 7, until: "2026-12-01T00:00:00-05:00" } },
  ],
  [
    "a day and a month: when both have turned",
    { records_per_day: 5, bytes_per_month: 100 },
    [7, 100],
    { retryAfterS: (5 * 24 + 1) * 3_600, details: { quota: "bytes_per_month" } },
  ],
])("%s", (_, terms, [records, size], expected) => {
  const { decider, use } = world("2026-11-25T23:00:00Z", terms);
  use(records, size);
  expect(decider.verdict("acme")).toMatchObject(expected);
  expect(decider.verdict("other")).toEqual({ kind: "within" });
});

it("the moment the window turns, calls are let in; until then Retry-After is never too short", () => {
  const { decider, use, clock } = world("2026-11-25T23:59:59.001Z", { records_per_day: 1 });
  use(1);
  expect(decider.verdict("acme")).toMatchObject({ retryAfterS: 1 });
  clock.ms = ms("2026-11-26T00:00:00Z");
  expect(decider.verdict("acme")).toEqual({ kind: "within" });
});

it("what is left until the nearest quota, and nothing below zero", () => {
  const { decider, use } = world("2026-11-25T12:00:00Z", { records_per_day: 10, records_per_month: 8 });
  use(3);
  expect([decider.left("acme"), decider.left("other")]).toEqual([
    { records: 5, bytes: Number.POSITIVE_INFINITY },
    { records: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY },
  ]);
  decider.set("acme", { bytes_per_day: 100 });
  expect(decider.left("acme")).toEqual({ records: Number.POSITIVE_INFINITY, bytes: 0 });
  decider.set("acme", { bytes_per_day: null });
  expect(decider.held.size).toBe(0);
});

it("what is stored counts for the next call; before usage is read, only tenants without quotas are let in", () => {
  const { decider, meter } = world("2026-11-25T12:00:00Z", { records_per_day: 2 });
  decider.stored({ tenant: "acme", shard: 0, seq: 1, records: 2, size: 2 });
  expect(decider.verdict("acme")).toMatchObject({ kind: "reject", details: { used: 2 } });
  meter.ready = false;
  expect(() => decider.verdict("acme")).toThrow(expect.objectContaining({ code: "not_ready" }));
  expect(decider.verdict("other")).toEqual({ kind: "within" });
});

function warner(at: string, terms: Terms) {
  const all = world(at, terms);
  const stream = new Map<string, QuotaWarning>();
  const counted: QuotaWarning[] = [];
  const faults: Error[] = [];
  const make = () =>
    new Warnings(
      all.meter,
      all.decider,
      all.calendars,
      {
        append: async (warning, fromMs) => {
          const fault = faults.pop();
          if (fault !== undefined) throw fault;
          const key = `${warning.tenant}.${warning.quota}.${fromMs}.${warning.percent}`;
          if (stream.has(key)) return false;
          stream.set(key, warning);
          return true;
        },
        appended: (warning) => counted.push(warning),
        where: "here",
      },
      all.clock,
    );
  return { ...all, stream, counted, faults, make };
}

it("80 and 100 percent once each, whoever looks; again in the next window", async () => {
  const { use, make, stream, counted, clock } = warner("2026-11-25T12:00:00Z", { records_per_day: 10, time_zone: "Asia/Kolkata" });
  const [first, second] = [make(), make()];
  const percents = () => counted.map(({ percent }) => percent);
  use(7);
  await first.look();
  expect(percents()).toEqual([]);
  use(1);
  for (const one of [first, second, first]) await one.look();
  expect(percents()).toEqual([80]);
  use(90);
  for (const one of [second, first, make()]) await one.look();
  expect(percents()).toEqual([80, 100]);
  expect([...stream.values()][1]).toEqual({
    version: 1,
    id: expect.stringMatching(/^[0-9A-Z]{26}$/),
    time: "2026-11-25T12:00:00.000Z",
    tenant: "acme",
    what: "quota_warning",
    who: "relog",
    where: "here",
    percent: 100,
    quota: "records_per_day",
    limit: 10,
    used: 98,
    window: { from: "2026-11-25T00:00:00+05:30", to: "2026-11-26T00:00:00+05:30" },
  });
  clock.ms = ms("2026-11-26T12:00:00Z");
  await first.look();
  use(8);
  await first.look();
  expect(percents()).toEqual([80, 100, 80]);
});

it("a quota that is lowered below what is used; one that is raised takes nothing back", async () => {
  const { use, make, counted, decider } = warner("2026-11-25T12:00:00Z", { bytes_per_month: 1_000_000 });
  const one = make();
  use(10);
  await one.look();
  decider.set("acme", { bytes_per_month: 1_000 });
  await one.look();
  expect(counted.map(({ percent, limit, used }) => [percent, limit, used])).toEqual([
    [80, 1_000, 1_000],
    [100, 1_000, 1_000],
  ]);
  decider.set("acme", { bytes_per_month: 1_000_000 });
  await one.look();
  expect(counted).toHaveLength(2);
});

it("what could not be appended is tried again", async () => {
  const { use, make, counted, faults } = warner("2026-11-25T12:00:00Z", { records_per_day: 10 });
  const one = make();
  use(10);
  faults.push(new Error("no leader"));
  await expect(one.look()).rejects.toThrow("no leader");
  await one.look();
  expect(counted.map(({ percent }) => percent)).toEqual([80, 100]);
});

// Quotas and what-if: pure functions, by hand-made figures.

import { expect, it } from "vitest";
import type { Quarter, Window } from "../store/usage.ts";
import { QUARTER_MS } from "../store/usage.ts";
import { quotaStates } from "./quotas.ts";
import { whatIf } from "./what-if.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const D0 = Date.parse("2026-03-02T00:00:00Z");
const M0 = Date.parse("2026-03-01T00:00:00Z");
const windows = (day: number, month: number): { day: Window; month: Window } => ({
  day: { fromMs: D0, toMs: D0 + DAY, records: day, bytes: day * 10 },
  month: { fromMs: M0, toMs: M0 + 31 * DAY, records: month, bytes: month * 10 },
});

it.each<[string, number, number, number, number | null]>([
  // what, used today, of the last 24 hours, hours of the day that have passed, hours until it ends
  ["at the pace of the day so far", 600, 0, 6, 4],
  ["at the pace of the last 24 hours, which is larger", 600, 4_800, 6, 2],
  ["not before the day turns", 600, 240, 20, null],
  ["nothing is used", 0, 0, 6, null],
  ["it is used up", 1_000, 0, 6, 0],
  ["it is used up by far", 5_000, 0, 6, 0],
])("a quota of 1000 records a day: %s", (_, used, last, hours, ends) => {
  const nowMs = D0 + hours * HOUR;
  const [state, ...more] = quotaStates(
    { records_per_day: 1_000, bytes_per_month: null },
    windows(used, 0),
    { records: last, bytes: 0 },
    nowMs,
  );
  expect(more).toEqual([]);
  expect(state).toEqual({
    quota: "records_per_day",
    limit: 1_000,
    used,
    left: Math.max(0, 1_000 - used),
    window: { fromMs: D0, toMs: D0 + DAY },
    endsMs: ends === null ? null : nowMs + ends * HOUR,
  });
});

it("every quota by its own measure and window; without the last 24 hours by the window alone", () => {
  const amounts = { records_per_day: 1, bytes_per_day: 2, records_per_month: 3_000, bytes_per_month: 4 };
  const states = quotaStates(amounts, windows(5, 100), undefined, M0 + DAY);
  expect(states.map(({ quota, used }) => [quota, used])).toEqual([
    ["records_per_day", 5],
    ["bytes_per_day", 50],
    ["records_per_month", 100],
    ["bytes_per_month", 1_000],
  ]);
  expect(states[2]!.endsMs).toBe(M0 + 30 * DAY);
});

const quarter = (day: number, index: number, records: number, bytes = records * 10): Quarter => {
  const dayMs = D0 + day * DAY;
  return { quarterMs: dayMs + index * QUARTER_MS, dayMs, monthMs: M0, records, bytes };
};

it("a quota per day begins anew each day, and what is beyond it is counted exactly", () => {
  const quarters = [quarter(0, 0, 60), quarter(0, 1, 60), quarter(0, 2, 5), quarter(1, 0, 100), quarter(2, 8, 101)];
  expect(whatIf(quarters, { records_per_day: 100 }, D0)).toEqual([
    {
      limit: "records_per_day",
      value: 100,
      atLeast: false,
      records: 26,
      bytes: 260,
      days: [
        { dayMs: D0, hitMs: D0 + QUARTER_MS, records: 25, bytes: 250 },
        { dayMs: D0 + 2 * DAY, hitMs: D0 + 2 * DAY + 8 * QUARTER_MS, records: 1, bytes: 10 },
      ],
    },
  ]);
});

it("a quota per month counts what was before the days that are told", () => {
  const quarters = [quarter(-1, 0, 90), quarter(0, 0, 20), quarter(1, 3, 7)];
  const [bytes] = whatIf(quarters, { bytes_per_month: 1_000 }, D0);
  expect(bytes!.days).toEqual([
    { dayMs: D0, hitMs: D0, records: 10, bytes: 100 },
    { dayMs: D0 + DAY, hitMs: null, records: 7, bytes: 70 },
  ]);
  expect(whatIf(quarters, { bytes_per_month: 1_000 }, D0 + DAY)[0]).toMatchObject({ records: 7, bytes: 70 });
  const next = { ...quarter(2, 0, 95), monthMs: M0 + 31 * DAY };
  expect(whatIf([...quarters, next], { records_per_month: 100 }, D0)[0]!.records).toBe(17);
});

it("a limit per second is replayed over means of quarters", () => {
  const quarters = [quarter(0, 0, 900), quarter(0, 1, 1_800), quarter(0, 2, 2_700)];
  expect(whatIf(quarters, { ingest_records_per_second: 1 }, D0)).toEqual([
    {
      limit: "ingest_records_per_second",
      value: 1,
      atLeast: true,
      records: 2_700,
      bytes: 27_000,
      days: [{ dayMs: D0, hitMs: D0 + QUARTER_MS, records: 2_700, bytes: 27_000 }],
    },
  ]);
  expect(whatIf(quarters, { ingest_bytes_per_second: 30 }, D0)[0]!.days).toEqual([]);
  expect(whatIf(quarters, {}, D0)).toEqual([]);
});

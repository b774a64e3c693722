// Days and months of zones: clock changes at and over midnight, half hours, days that were left out; every moment is in one of each.

import fc from "fast-check";
import { expect, it } from "vitest";
import { Calendar, earliestMonthMs } from "./windows.ts";

const ms = (text: string): number => Date.parse(text);

it.each<[zone: string, at: string, day: [string, string], month: [string, string]]>([
  ["UTC", "2026-11-25T00:00:00Z", ["2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"], ["2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"]],
  ["UTC", "2026-12-31T23:59:59.999Z", ["2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"], ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]],
  // 23 and 25 hours.
  [
    "Europe/Berlin",
    "2026-03-29T12:00:00Z",
    ["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"],
    ["2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"],
  ],
  [
    "Europe/Berlin",
    "2026-10-25T00:30:00Z",
    ["2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"],
    ["2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00"],
  ],
  // Half and quarter hours; a change of half an hour.
  [
    "Asia/Kolkata",
    "2026-11-24T18:30:00Z",
    ["2026-11-25T00:00:00+05:30", "2026-11-26T00:00:00+05:30"],
    ["2026-11-01T00:00:00+05:30", "2026-12-01T00:00:00+05:30"],
  ],
  [
    "Asia/Kathmandu",
    "2026-11-24T18:14:59Z",
    ["2026-11-24T00:00:00+05:45", "2026-11-25T00:00:00+05:45"],
    ["2026-11-01T00:00:00+05:45", "2026-12-01T00:00:00+05:45"],
  ],
  [
    "Australia/Lord_Howe",
    "2026-10-04T05:00:00Z",
    ["2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00"],
    ["2026-10-01T00:00:00+10:30", "2026-11-01T00:00:00+11:00"],
  ],
  // Midnight is left out: the day begins at one.
  [
    "Africa/Cairo",
    "2026-04-24T10:00:00Z",
    ["2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"],
    ["2026-04-01T00:00:00+02:00", "2026-05-01T00:00:00+03:00"],
  ],
  // Midnight comes twice: the day begins with the first.
  [
    "America/Havana",
    "2026-11-01T05:30:00Z",
    ["2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"],
    ["2026-11-01T00:00:00-04:00", "2026-12-01T00:00:00-05:00"],
  ],
  // The 30th of December 2011 was left out.
  [
    "Pacific/Apia",
    "2011-12-30T09:59:59Z",
    ["2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"],
    ["2011-12-01T00:00:00-10:00", "2012-01-01T00:00:00+14:00"],
  ],
  [
    "Pacific/Kiritimati",
    "2026-12-31T10:00:00Z",
    ["2027-01-01T00:00:00+14:00", "2027-01-02T00:00:00+14:00"],
    ["2027-01-01T00:00:00+14:00", "2027-02-01T00:00:00+14:00"],
  ],
  [
    "America/Los_Angeles",
    "2028-02-29T12:00:00Z",
    ["2028-02-29T00:00:00-08:00", "2028-03-01T00:00:00-08:00"],
    ["2028-02-01T00:00:00-08:00", "2028-03-01T00:00:00-08:00"],
  ],
])("%s at %s", (zone, at, day, month) => {
  const calendar = new Calendar(zone);
  const windows = calendar.at(ms(at));
  expect(windows).toEqual({
    day: { fromMs: ms(day[0]), toMs: ms(day[1]) },
    month: { fromMs: ms(month[0]), toMs: ms(month[1]) },
  });
  if (zone !== "UTC") expect([calendar.format(windows.day.fromMs), calendar.format(windows.day.toMs)]).toEqual(day);
});

it("times are written with the offset that the zone has then", () => {
  expect(new Calendar("UTC").format(ms("2026-01-02T03:04:05.678Z"))).toBe("2026-01-02T03:04:05+00:00");
  expect(new Calendar("America/St_Johns").format(ms("2026-01-02T03:04:05Z"))).toBe("2026-01-01T23:34:05-03:30");
});

it("windows of any zone follow each other without gap and overlap, whatever was asked before", () => {
  const zones = [...Intl.supportedValuesOf("timeZone"), "UTC"].map((zone) => [zone, new Calendar(zone)] as const);
  const moment = fc.integer({ min: ms("2005-01-01T00:00:00Z"), max: ms("2037-01-01T00:00:00Z") });
  fc.assert(
    fc.property(fc.constantFrom(...zones), moment, ([zone, calendar], at) => {
      const { day, month } = calendar.at(at);
      expect(new Calendar(zone).at(at)).toEqual({ day, month });
      expect(day.fromMs <= at && at < day.toMs && month.fromMs <= day.fromMs && day.toMs <= month.toMs).toBe(true);
      const [before, after] = [calendar.at(day.fromMs - 1), calendar.at(day.toMs)];
      expect([before.day.toMs, after.day.fromMs]).toEqual([day.fromMs, day.toMs]);
      expect([month.fromMs, month.toMs]).toContain(after.month.fromMs);
    }),
    { numRuns: 300 },
  );
});

it("what counts into a current month anywhere was stored after the earliest one began", () => {
  const zones = Intl.supportedValuesOf("timeZone").map((zone) => new Calendar(zone));
  for (const at of [
    "2026-12-01T00:00:00Z",
    "2026-11-30T23:59:59Z",
    "2026-12-01T11:59:59Z",
    "2026-12-01T12:00:00Z",
    "2027-01-01T05:00:00Z",
  ]) {
    const earliest = Math.min(...zones.map((calendar) => calendar.at(ms(at)).month.fromMs));
    expect(earliestMonthMs(ms(at))).toBeLessThan(earliest);
  }
  expect(earliestMonthMs(ms("2026-12-01T12:00:00Z"))).toBe(ms("2026-11-30T09:00:00Z"));
});

it("a zone that is not there is said", () => {
  expect(() => new Calendar("Mars/Olympus")).toThrow(RangeError);
});

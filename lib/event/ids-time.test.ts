// Ids, shards, times and severities.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isBatchId, newBatchId, newBatchIdOn, shardOf, timeOfBatchId } from "./ids.ts";
import { levelOf, severityNumberOf } from "./severity.ts";
import { parseTime } from "./time.ts";

const MS = 1_735_689_600_123;

describe("ids", () => {
  it("are ULIDs that say when they were made, and increase", () => {
    const ids = Array.from({ length: 1000 }, () => newBatchId(MS));
    expect(ids.every(isBatchId)).toBe(true);
    expect(new Set(ids).size).toBe(1000);
    expect([...ids].sort()).toEqual(ids);
    expect(timeOfBatchId(newBatchId(MS + 5))).toBe(MS + 5);
  });

  it.each([
    1, 2, 3, 7, 64, 255, 256,
  ])("fall on the wanted one of %i shards, and no two are equal, also within one millisecond", (shards) => {
    const ids = Array.from({ length: 600 }, (_, i) => [i % shards, newBatchIdOn(i % shards, shards, MS)] as const);
    for (const [shard, id] of ids) expect(shardOf(id, shards)).toBe(shard);
    expect(new Set(ids.map(([, id]) => id)).size).toBe(600);
  });

  it("spread evenly over the shards", () => {
    const counts = new Array<number>(8).fill(0);
    for (let i = 0; i < 8000; i++) counts[shardOf(newBatchId(MS + i * 10), 8)]!++;
    for (const count of counts) expect(count).toBeGreaterThan(800);
  });

  it("the hash is CRC-32", () => {
    expect(shardOf("123456789", 2 ** 32)).toBe(0xcbf43926);
  });
});

const at = (text: string): string => {
  const target = { seconds: -1, nanoseconds: -1 };
  return parseTime(text, target) ?? `${target.seconds}.${String(target.nanoseconds).padStart(9, "0")}`;
};

describe("times", () => {
  it("agree with Date on every way to write a moment", () => {
    const pad = (value: number, width = 2) => String(value).padStart(width, "0");
    const moment = fc.date({ min: new Date(86_400_000), max: new Date("2261-12-30T00:00:00Z"), noInvalidDate: true });
    const parts = fc.record({
      date: moment,
      digits: fc.integer({ min: 1, max: 9 }),
      rest: fc.nat(999_999),
      minutes: fc.integer({ min: -1439, max: 1439 }),
      form: fc.nat(4),
    });
    fc.assert(
      fc.property(parts, ({ date, digits, rest, minutes, form }) => {
        const fraction = (pad(date.getUTCMilliseconds(), 3) + pad(rest, 6)).slice(0, digits);
        const wanted = `${Math.floor(date.getTime() / 1000)}.${fraction.padEnd(9, "0")}`;
        const offset = form === 4 ? minutes : 0;
        const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, 19);
        const zone = `${offset < 0 ? "-" : "+"}${pad(Math.floor(Math.abs(offset) / 60))}:${pad(Math.abs(offset) % 60)}`;
        const text = [
          `${local}.${fraction}Z`,
          `${local.replace("T", " ")},${fraction}`,
          `${local}.${fraction} UTC`,
          `${local}.${fraction}+0000`,
          `${local}.${fraction}${zone}`,
        ][form]!;
        expect(at(text)).toBe(wanted);
      }),
      { numRuns: 2000 },
    );
  });

  it("accept exactly the days that exist", () => {
    for (const year of [1970, 1972, 1999, 2000, 2023, 2024, 2100, 2200]) {
      for (let month = 0; month <= 13; month++) {
        for (let day = 0; day <= 32; day++) {
          const date = new Date(Date.UTC(year, month - 1, day));
          const exists = month >= 1 && month <= 12 && day >= 1 && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
          const text = `${year}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`;
          for (const whole of [`${text}T00:00:00Z`, `${text} 00:00`])
            expect([whole, at(whole)]).toEqual([whole, exists ? `${date.getTime() / 1000}.000000000` : expect.stringContaining("no date")]);
        }
      }
    }
  });

  it.each([
    ["99999999999", "99999999999: too late", "times after the year 2262 cannot be stored"],
    ["9223372035", "the last second", "9223372035.000000000"],
    ["100000000000", "1e11 is milliseconds", "100000000.000000000"],
    ["99999999999999", "below 1e14 is milliseconds", "times after the year 2262 cannot be stored"],
    ["1735689600123", "milliseconds", "1735689600.123000000"],
    ["1735689600123.456789", "milliseconds with a fraction", "1735689600.123456789"],
    ["100000000000000", "1e14 is microseconds", "100000000.000000000"],
    ["1735689600123456", "microseconds", "1735689600.123456000"],
    ["99999999999999999", "below 1e17 is microseconds", "times after the year 2262 cannot be stored"],
    ["100000000000000000", "1e17 is nanoseconds", "100000000.000000000"],
    ["1735689600123456789", "nanoseconds, none lost", "1735689600.123456789"],
    ["1735689600.5", "seconds with a fraction", "1735689600.500000000"],
    ["1.7356896e9", "an exponent", "1735689600.000000000"],
    ["0", "the epoch", "0.000000000"],
    [" 0000000001 ", "leading zeros and blanks", "1.000000000"],
    ["-1", "before the epoch", "times before 1970-01-01 cannot be stored"],
    ["1969-12-31T23:59:59Z", "before the epoch", "times before 1970-01-01 cannot be stored"],
    ["1970-01-01T00:00:00+01:00", "before the epoch in UTC", "times before 1970-01-01 cannot be stored"],
    ["2016-12-31T23:59:60Z", "a leap second", "1483228800.000000000"],
    ["2262-04-11T23:47:15Z", "the last second", "9223372035.000000000"],
    ["2262-04-11T23:47:16Z", "one later", "times after the year 2262 cannot be stored"],
    ["2025-01-01T00:00:00.1234567899Z", "more digits than nanoseconds", "1735689600.123456789"],
    ["2025-01-01 02:00+02", "no seconds, hours of offset", "1735689600.000000000"],
  ])("%s: %s", (text, _, wanted) => {
    expect(at(text)).toBe(wanted);
  });

  it.each([
    "",
    "now",
    "true",
    "2025-01-01T24:00:00Z",
    "2025-01-01T00:60:00Z",
    "2025-01-01T00:00:61Z",
    "2025-01-01T00:00:00.Z",
    "2025-01-01T00:00:00+24:00",
    "2025-01-01T00:00:00+01:60",
    "12345678901234567890",
    "1e99",
    "0x10",
    "1_000",
    "2025-1-1",
    "20250101",
  ])("%j is refused", (text) => {
    // A bare number of eight digits is seconds.
    expect(at(text)).toMatch(text === "20250101" ? /^20250101\.0/ : /neither|no date|no time|zone/);
  });
});

it.each([
  ["INFO", 9, "info"],
  ["Information", 9, "info"],
  ["notice", 10, "info"],
  ["warn", 13, "warn"],
  ["WARNING", 13, "warn"],
  ["err", 17, "error"],
  ["critical", 18, "error"],
  ["alert", 19, "error"],
  ["emerg", 21, "fatal"],
  ["panic", 21, "fatal"],
  ["trace", 1, "trace"],
  ["debug2", 6, "debug"],
  ["FATAL4", 24, "fatal"],
  ["30", 9, "info"],
  ["60", 21, "fatal"],
  [" warn ", 13, "warn"],
  ["constructor", 0, "unknown"],
  ["", 0, "unknown"],
  ["x".repeat(1e5), 0, "unknown"],
] as const)("the level %.20s is %i, %s", (word, number, level) => {
  for (const again of [word, word]) expect([severityNumberOf(again), levelOf(number)]).toEqual([number, level]);
});

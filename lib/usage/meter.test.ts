// The fold: windows turn, zones change, streams are made again, and no order or restart changes a total.

import fc from "fast-check";
import { expect, it } from "vitest";
import { SNAPSHOT_BYTES_MAX } from "./keep.ts";
import { Meter } from "./meter.ts";
import type { Metered } from "./metered.ts";
import { readMetered } from "./metered.ts";
import type { Snapshot } from "./snapshot.ts";
import { Calendars } from "./windows.ts";

const ms = (text: string): number => Date.parse(text);
const NOON = ms("2026-11-25T12:00:00Z");
const HOUR = 3_600_000;
const calendars = new Calendars();

function meterAt(nowMs = NOON, zones: Record<string, string> = {}, shards = 2) {
  const clock = { ms: nowMs };
  const meter = new Meter(
    shards,
    calendars,
    (tenant) => zones[tenant] ?? "UTC",
    () => clock.ms,
  );
  for (let shard = 0; shard < shards; shard++) meter.begin(shard, "c", 1);
  return { meter, clock, zones };
}
const message = (observedMs: number, records = 1, tenant = "acme"): Metered => ({ tenant, records, size: records * 100, observedMs });
const sums = (meter: Meter, tenant = "acme") => {
  const { day, month } = meter.windows(tenant);
  return [day.records, day.bytes, month.records, month.bytes];
};

it("records and bytes of the day and of the month, over all shards", () => {
  const { meter } = meterAt();
  meter.fold(0, 1, message(NOON, 3));
  meter.fold(1, 1, message(NOON, 4));
  meter.fold(0, 2, message(NOON, 9, "other"));
  meter.fold(0, 3, message(NOON - 24 * HOUR, 10));
  expect([sums(meter), sums(meter, "other"), sums(meter, "nobody")]).toEqual([
    [7, 700, 17, 1700],
    [9, 900, 9, 900],
    [0, 0, 0, 0],
  ]);
  expect(meter.windows("acme").day).toMatchObject({ fromMs: ms("2026-11-25T00:00:00Z"), toMs: ms("2026-11-26T00:00:00Z") });
});

it("windows turn with the clock and with the first message of the next; what comes late is not counted into it", () => {
  const { meter, clock } = meterAt();
  meter.fold(0, 1, message(NOON, 3));
  clock.ms = ms("2026-11-26T00:00:00Z");
  expect(sums(meter)).toEqual([0, 0, 3, 300]);
  meter.fold(0, 2, message(clock.ms, 5));
  meter.fold(1, 1, message(clock.ms - 1, 7));
  expect(sums(meter)).toEqual([5, 500, 15, 1500]);
  clock.ms = ms("2026-12-01T00:00:00Z");
  expect(sums(meter)).toEqual([0, 0, 0, 0]);
  meter.fold(0, 3, message(clock.ms, 1));
  meter.fold(0, 4, message(clock.ms - 1, 1));
  expect(sums(meter)).toEqual([1, 100, 1, 100]);
});

it("a day of the tenant's own zone", () => {
  const { meter, clock } = meterAt(ms("2026-11-25T18:00:00Z"), { acme: "Asia/Kolkata" });
  meter.fold(0, 1, message(ms("2026-11-24T18:30:00Z"), 1));
  meter.fold(0, 2, message(ms("2026-11-24T18:29:59Z"), 2));
  expect(sums(meter)).toEqual([1, 100, 3, 300]);
  clock.ms = ms("2026-11-25T18:30:00Z");
  expect(sums(meter)).toEqual([0, 0, 3, 300]);
});

it.each([
  ["Asia/Tokyo", "2026-11-26T00:00:00+09:00", "2026-11-27T00:00:00+09:00"],
  ["America/New_York", "2026-11-25T00:00:00-05:00", "2026-11-26T00:00:00-05:00"],
])("when the zone becomes %s, the day and month in progress go on in it, here and from a snapshot", (zone, from, to) => {
  const { meter, clock, zones } = meterAt(ms("2026-11-25T20:00:00Z"));
  meter.fold(0, 1, message(clock.ms, 3));
  meter.fold(1, 1, message(clock.ms, 4));
  const old = [0, 1].map((shard) => meter.snapshot(shard)!);
  zones.acme = zone;
  const [before] = [meter.position(0).changes];
  meter.rezone("acme");
  expect(meter.position(0).changes).toBeGreaterThan(before);
  const again = new Meter(
    2,
    calendars,
    () => zone,
    () => clock.ms,
  );
  // One was written before the change, one after it.
  again.restore(0, old[0]!);
  again.restore(1, meter.snapshot(1)!);
  for (const one of [meter, again]) {
    one.fold(0, 2, message(clock.ms, 1));
    expect([sums(one), one.windows("acme").day]).toEqual([[8, 800, 8, 800], { fromMs: ms(from), toMs: ms(to), records: 8, bytes: 800 }]);
  }
  clock.ms = ms(to);
  expect(sums(meter)).toEqual([0, 0, 8, 800]);
});

it("what this process stored counts at once, and once", () => {
  const { meter } = meterAt();
  const stored = (seq: number, shard = 0) => meter.stored({ tenant: "acme", shard, seq, records: 2, size: 200 });
  stored(2);
  stored(2);
  stored(5, 1);
  expect(sums(meter)).toEqual([4, 400, 4, 400]);
  meter.fold(0, 1, message(NOON, 1));
  meter.fold(0, 2, message(NOON, 2));
  expect(sums(meter)).toEqual([5, 500, 5, 500]);
  // The fold was faster than the acknowledgement.
  stored(1);
  expect(sums(meter)).toEqual([5, 500, 5, 500]);
  // It is gone, or its stream is.
  meter.pass(1, 5);
  stored(9);
  expect(sums(meter)).toEqual([5, 500, 5, 500]);
  meter.begin(0, "again", 1);
  expect(sums(meter)).toEqual([3, 300, 3, 300]);
  expect(meter.passedOver).toBe(5);
});

it("a stream that was made again is folded from its beginning, and what was counted stays", () => {
  const { meter } = meterAt();
  meter.fold(0, 1, message(NOON, 3));
  meter.begin(0, "again", 1);
  meter.fold(0, 1, message(NOON, 4));
  expect([sums(meter), meter.snapshot(0)]).toEqual([[7, 700, 7, 700], expect.objectContaining({ stream: "again", next: 2 })]);
});

it("messages that are no batches, and repeated ones, count nothing", () => {
  const { meter } = meterAt();
  meter.fold(0, 1, undefined);
  meter.fold(0, 2, message(NOON));
  meter.fold(0, 2, message(NOON));
  expect([sums(meter), meter.passedOver, meter.position(0).next]).toEqual([[1, 100, 1, 100], 1, 3]);
});

it("who used nothing in the current month is forgotten", () => {
  const { meter, clock } = meterAt();
  meter.fold(0, 1, message(NOON));
  meter.prune();
  expect([meter.size, Object.keys(meter.snapshot(0)!.tenants)]).toEqual([1, ["acme"]]);
  clock.ms = ms("2026-12-01T00:00:00Z");
  expect(meter.snapshot(0)!.tenants).toEqual({});
  meter.prune();
  expect(meter.size).toBe(0);
});

it("50,000 tenants fit into one snapshot, with the longest names and numbers", () => {
  const { meter } = meterAt(NOON, {}, 1);
  const most = { records: Number.MAX_SAFE_INTEGER, size: Number.MAX_SAFE_INTEGER, observedMs: NOON };
  for (let i = 0; i < 50_000; i++) meter.fold(0, i + 1, { tenant: `customer-${i}`.padEnd(63, "x"), ...most });
  expect(JSON.stringify(meter.snapshot(0)).length).toBeLessThan(SNAPSHOT_BYTES_MAX);
});

const ZONES = { a: "UTC", b: "Asia/Kolkata", c: "America/Havana" };
const START = ms("2026-10-30T00:00:00Z");
const END = ms("2026-11-03T00:00:00Z");
const anyMessage = fc.record({
  tenant: fc.constantFrom("a", "b", "c"),
  records: fc.integer({ min: 1, max: 1_000 }),
  size: fc.integer({ min: 1, max: 100_000 }),
  observedMs: fc.integer({ min: START, max: END }),
});

it("any order of shards, restarts at any point from snapshots of any age: the same totals, and those that counting gives", () => {
  const logs = fc.array(fc.array(anyMessage, { maxLength: 30 }), { minLength: 3, maxLength: 3 });
  const steps = fc.array(fc.record({ shard: fc.nat(2), what: fc.constantFrom("fold", "fold", "fold", "snapshot", "restart") }), {
    maxLength: 150,
  });
  fc.assert(
    fc.property(logs, steps, (shards, order) => {
      const make = () =>
        new Meter(
          3,
          calendars,
          (tenant) => ZONES[tenant as "a"],
          () => END,
        );
      let meter = make();
      const kept: (Snapshot | undefined)[] = [undefined, undefined, undefined];
      const restart = (): void => {
        meter = make();
        for (const shard of [2, 0, 1]) {
          const snapshot = kept[shard];
          if (snapshot === undefined) meter.begin(shard, "c", 1);
          else meter.restore(shard, JSON.parse(JSON.stringify(snapshot)) as Snapshot);
        }
      };
      restart();
      const step = (shard: number): boolean => {
        const { next } = meter.position(shard);
        const one = shards[shard]![next - 1];
        if (one !== undefined) meter.fold(shard, next, one);
        return one !== undefined;
      };
      for (const { shard, what } of order) {
        if (what === "fold") step(shard);
        else if (what === "snapshot") kept[shard] = meter.snapshot(shard);
        else restart();
      }
      for (const shard of [1, 2, 0]) while (step(shard));
      for (const tenant of ["a", "b", "c"] as const) {
        const mine = shards.flat().filter((one) => one.tenant === tenant);
        const now = calendars.of(ZONES[tenant]).at(END);
        const count = (from: number) => {
          const counted = mine.filter(({ observedMs }) => observedMs >= from);
          return [counted.reduce((sum, { records }) => sum + records, 0), counted.reduce((sum, { size }) => sum + size, 0)];
        };
        expect(sums(meter, tenant)).toEqual([...count(now.day.fromMs), ...count(now.month.fromMs)]);
      }
    }),
    { numRuns: 300 },
  );
});

it.each<[string, Record<string, string>, Metered | undefined]>([
  ["of now", { "Relog-Size": "7", "Relog-Observed": "1000" }, { tenant: "acme", records: 2, size: 7, observedMs: 1000 }],
  // As readEnvelope: bytes as sent, and the time of the batch's id.
  ["of an earlier version", { "Relog-Batch": "0000000000ABCDEFGHJKMNPQRS" }, { tenant: "acme", records: 2, size: 9, observedMs: 0 }],
  ["of a clock that is ahead", { "Relog-Observed": "999999999" }, { tenant: "acme", records: 2, size: 9, observedMs: 65_000 }],
  ["without records", { "Relog-Records": "" }, undefined],
  ["with a malformed size", { "Relog-Size": "-1" }, undefined],
  ["with a malformed time", { "Relog-Observed": "x" }, undefined],
  ["of nobody", { "Relog-Tenant": "" }, undefined],
  ["without a batch", {}, undefined],
])("the usage of a message %s", (_, more, expected) => {
  const headers: Record<string, string> = { "Relog-Tenant": "acme", "Relog-Records": "2", "Relog-Bytes": "9", ...more };
  expect(readMetered((name) => headers[name] ?? "", 5_000)).toEqual(expected);
});

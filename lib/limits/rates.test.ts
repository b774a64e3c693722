// Limits a second: who is refused, for how long, what the fields say, and several processes under one limit.

import { expect, it } from "vitest";
import { RelogError } from "../base/errors.ts";
import { Rates } from "./rates.ts";
import { lookupOf, NO_DEFAULTS } from "./testing.ts";
import { debitUsage, usageMessages } from "./usage.ts";
import type { Limits } from "./values.ts";

const A1 = { tenant: "a", keyId: "k1" };
const A2 = { tenant: "a", keyId: "k2" };

function house(limits: Record<string, Limits>, defaults = NO_DEFAULTS) {
  const clock = { ms: 1_000 };
  const rates = new Rates(lookupOf(limits), defaults, () => clock.ms);
  /** A whole call. */
  const call = (who = A1, records = 1, bytes = 100): RelogError | undefined => {
    const limit = rates.of(who);
    try {
      limit.enter();
      limit.body(bytes);
      limit.records(records);
      return undefined;
    } catch (error) {
      return error as RelogError;
    }
  };
  return { clock, rates, call, limits };
}

it.each<[what: string, limits: Limits, call: [records: number, bytes: number], limit: string, waitMs: number]>([
  ["requests", { ingest_requests_per_second: 1, burst_seconds: 1 }, [1, 1], "ingest_requests_per_second", 1_000],
  ["records", { ingest_records_per_second: 10, burst_seconds: 1 }, [35, 1], "ingest_records_per_second", 2_600],
  ["bytes", { ingest_bytes_per_second: 1_000, burst_seconds: 2 }, [1, 5_000], "ingest_bytes_per_second", 3_001],
  [
    "the longest wait of several",
    { ingest_requests_per_second: 1, ingest_bytes_per_second: 1_000, burst_seconds: 1 },
    [1, 9_000],
    "ingest_requests_per_second",
    8_001,
  ],
])("%s: one call passes whatever its size, the next one after the wait and not before", (_what, limits, size, limit, waitMs) => {
  const { call, clock } = house({ a: limits });
  expect(call(A1, ...size)).toBeUndefined();
  expect(call(A2, ...size)).toMatchObject({
    code: "rate_limited",
    retryAfterS: waitMs / 1_000,
    details: { limit, of: "tenant", retry_after_ms: waitMs },
    message: expect.stringContaining(`tenant "a" is over ${limit}`),
  });
  clock.ms += waitMs - 1;
  expect(call(A1)).toMatchObject({ retryAfterS: 0.001 });
  clock.ms += 1;
  expect(call(A1)).toBeUndefined();
});

it("a key has limits of its own beside its tenant's; what one key uses is not another's", () => {
  const { call } = house({ a: { ingest_requests_per_second: 10 }, "a/k1": { ingest_requests_per_second: 1, burst_seconds: 2 } });
  expect([call(), call(), call()?.details]).toEqual([
    undefined,
    undefined,
    { limit: "ingest_requests_per_second", value: 1, of: "key", retry_after_ms: 1_000 },
  ]);
  for (let i = 0; i < 98; i++) expect(call(A2)).toBeUndefined();
  // What was refused was not charged: the tenant's 100 are the 2 and the 98.
  expect(call(A2)?.details).toMatchObject({ of: "tenant" });
});

it("between two checks another call may use up what was there: the body is refused then, and not charged", () => {
  const { rates, clock } = house({ a: { ingest_bytes_per_second: 100, burst_seconds: 1 } });
  const [first, second] = [rates.of(A1), rates.of(A1)];
  first.enter();
  second.enter();
  first.body(250);
  expect(() => second.body(1_000_000)).toThrow(RelogError);
  clock.ms += 1_510;
  expect(() => rates.of(A1).enter()).not.toThrow();
});

it("the fields are lists of structured fields, on success and refusal; without limits there are none", () => {
  const limits: Limits = { ingest_requests_per_second: 10, ingest_bytes_per_second: 9e15, burst_seconds: 5 };
  const { rates, call, clock } = house({ a: limits, "a/k1": { ingest_records_per_second: 4, burst_seconds: 2 } });
  expect(rates.of({ tenant: "b", keyId: "k" }).fields()).toEqual([]);
  const policy = `"requests";q=50;w=5, "bytes";q=999999999999999;qu="bytes";w=5, "key-records";q=8;qu="records";w=2`;
  expect(call(A1, 12)).toBeUndefined();
  clock.ms += 50;
  expect(rates.of(A1).fields()).toEqual([
    ["RateLimit-Policy", policy],
    ["RateLimit", `"requests";r=49;t=1, "bytes";r=999999999999999;t=0, "key-records";r=0;t=2`],
  ]);
  expect(rates.of(A2).fields()[0]).toEqual(["RateLimit-Policy", policy.split(", ").slice(0, 2).join(", ")]);
});

it("r is 0 exactly when a call is refused", () => {
  const { rates, call, clock } = house({ a: { ingest_requests_per_second: 3, burst_seconds: 1 } });
  for (let i = 0; i < 200; i++, clock.ms += 37) {
    const [, [, said]] = rates.of(A1).fields() as [unknown, [string, string]];
    expect(call() === undefined).toBe(!said.startsWith('"requests";r=0;'));
  }
});

it("a change acts on the next call and keeps what is in the bucket", () => {
  const { rates, call, limits } = house({ a: { ingest_records_per_second: 10, burst_seconds: 1 } });
  expect(call(A1, 1_010)).toBeUndefined();
  expect(call()?.retryAfterS).toBe(100.1);
  limits.a = { ingest_records_per_second: 1_000, burst_seconds: 1 };
  expect(call()?.retryAfterS).toBe(1.001);
  limits.a = {};
  expect([call(), rates.of(A1).fields()]).toEqual([undefined, []]);
});

it("tenants without limits of their own have the installation's; null takes one away and brings those back", () => {
  const { call, rates, limits } = house({ a: { ingest_requests_per_second: 5 } }, { ...NO_DEFAULTS, requestsPerS: 1, burstMs: 1_000 });
  const policy = (tenant: string): unknown => rates.of({ tenant, keyId: "k" }).fields()[0]![1];
  expect([policy("a"), policy("b")]).toEqual(['"requests";q=5;w=1', '"requests";q=1;w=1']);
  expect(call({ tenant: "b", keyId: "k" })).toBeUndefined();
  expect(call({ tenant: "b", keyId: "k" })?.details).toMatchObject({ value: 1 });
  limits.a = { ingest_requests_per_second: null };
  expect(policy("a")).toBe('"requests";q=1;w=1');
});

it("full buckets are forgotten, others are kept", () => {
  const { rates, call, clock } = house({ a: { ingest_requests_per_second: 1 }, b: { ingest_requests_per_second: 1 } });
  call(A1);
  call({ tenant: "b", keyId: "k" });
  clock.ms += 500;
  call(A1);
  clock.ms += 500;
  rates.sweep();
  expect(rates.size).toBe(1);
  clock.ms += 10_000;
  rates.sweep();
  expect(rates.size).toBe(0);
});

it("a body that takes longer than its bucket is held in memory counts for the calls after it", () => {
  const { rates, call, clock } = house({ a: { ingest_bytes_per_second: 1_000, burst_seconds: 1 } });
  const slow = rates.of(A1);
  slow.enter();
  clock.ms += 60_000;
  rates.sweep();
  expect(call(A2, 1, 100)).toBeUndefined();
  slow.body(5_000);
  slow.records(1);
  expect(call(A2)?.details).toMatchObject({ limit: "ingest_bytes_per_second" });
  const bytes = rates.takeUsed().map(({ amounts }) => amounts[2]);
  expect(bytes.reduce((sum, each) => sum + each, 0)).toBe(5_100);
});

it("over any run of three processes together, what is let in is at most the limit, the burst, and an interval's worth of each", () => {
  const limits = { a: { ingest_records_per_second: 100, burst_seconds: 2 } };
  const clock = { ms: 0 };
  const processes = ["p", "q", "r"].map((name) => ({ name, rates: new Rates(lookupOf(limits), NO_DEFAULTS, () => clock.ms) }));
  let taken = 0;
  for (; clock.ms < 60_000; clock.ms += 10) {
    for (const { rates } of processes) {
      const call = rates.of(A1);
      try {
        call.enter();
        call.body(10);
        call.records(10);
        taken += 10;
      } catch (error) {
        expect(error).toMatchObject({ code: "rate_limited" });
      }
    }
    if (clock.ms % 200 === 0) {
      const messages = processes.flatMap(({ rates, name }) => usageMessages(rates, name));
      for (const { rates, name } of processes) for (const text of messages) expect(debitUsage(rates, name, text)).toBe(true);
    }
  }
  // Each begins with a burst that it has not heard the others use; in an interval each may let in what ten calls of it are.
  expect(taken).toBeLessThanOrEqual(100 * 60 + 3 * 200 + 3 * 10);
  expect(taken).toBeGreaterThan(100 * 60);
});

it.each(["", "{", "[]", '{"from":1}', '{"from":"x","used":[["a","k",-1,0,0]]}', '{"from":"x","used":[["a"]]}'])("no usage: %s", (text) => {
  const { rates, call } = house({ a: { ingest_requests_per_second: 1 } });
  expect(debitUsage(rates, "me", text)).toBe(false);
  expect(call()).toBeUndefined();
});

it("only owners with limits are told, keys with their tenant; one's own word is not taken twice", () => {
  const { rates, call } = house({ a: { ingest_requests_per_second: 10 }, "a/k1": { ingest_bytes_per_second: 10 } });
  call(A1, 3, 50);
  call({ tenant: "b", keyId: "k" });
  const [text] = usageMessages(rates, "me");
  expect(JSON.parse(text!)).toEqual({
    from: "me",
    used: [
      ["a", "", 1, 3, 50],
      ["a", "k1", 1, 3, 50],
    ],
  });
  expect(usageMessages(rates, "me")).toEqual([]);
  const before = rates.of(A1).fields();
  expect(debitUsage(rates, "me", text!)).toBe(true);
  expect(rates.of(A1).fields()).toEqual(before);
  expect(debitUsage(rates, "other", text!)).toBe(true);
  expect(rates.of(A1).fields()).not.toEqual(before);
});

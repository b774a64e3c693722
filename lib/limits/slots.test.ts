// Queries and live tails at once.

import { expect, it } from "vitest";
import { Slots } from "./slots.ts";
import { lookupOf, NO_DEFAULTS } from "./testing.ts";

const A1 = { tenant: "a", keyId: "k1" };
const A2 = { tenant: "a", keyId: "k2" };

it.each([
  ["queries", "queries_at_once", "too_many_queries"],
  ["tails", "tails_at_once", "too_many_tails"],
] as const)("%s: of the tenant and of the key, given back once", (kind, limit, code) => {
  const slots = new Slots(kind, lookupOf({ a: { [limit]: 2 }, "a/k1": { [limit]: 1 } }), NO_DEFAULTS, () => 0);
  const first = slots.take(A1);
  expect(() => slots.take(A1)).toThrow(
    expect.objectContaining({ code, retryAfterS: 1, details: { limit, value: 1, of: "key" }, message: expect.stringContaining("key k1") }),
  );
  const second = slots.take(A2);
  expect(() => slots.take(A2)).toThrow(expect.objectContaining({ code, details: { limit, value: 2, of: "tenant" } }));
  expect(slots.taken("a")).toBe(2);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  expect(slots.taken("a")).toBe(1);
  slots.take(A1)[Symbol.dispose]();
  second[Symbol.dispose]();
  expect(slots.taken("a")).toBe(0);
  expect(slots.fields(A1)).toEqual([
    ["RateLimit-Policy", `"${kind}";q=2;qu="concurrent-requests", "key-${kind}";q=1;qu="concurrent-requests"`],
    ["RateLimit", `"${kind}";r=2, "key-${kind}";r=1`],
  ]);
});

it("without limits anything goes, and what runs counts when a limit comes", () => {
  const limits: Record<string, object> = {};
  const slots = new Slots("queries", lookupOf(limits), NO_DEFAULTS, () => 0);
  const held = Array.from({ length: 50 }, () => slots.take(A1));
  expect(slots.fields(A1)).toEqual([]);
  limits.a = { queries_at_once: 3 };
  expect(() => slots.take(A2)).toThrow(/has 3 queries at once/);
  expect(slots.fields(A1)[1]).toEqual(["RateLimit", '"queries";r=0']);
  for (const slot of held) slot[Symbol.dispose]();
  expect(slots.fields(A1)[1]).toEqual(["RateLimit", '"queries";r=3']);
});

it("the installation's limit counts where a tenant has none", () => {
  const slots = new Slots("tails", lookupOf({ b: { tails_at_once: 5 } }), { ...NO_DEFAULTS, tailsAtOnce: 1 }, () => 0);
  slots.take(A1);
  expect(() => slots.take(A2)).toThrow(/tenant "a" has 1 tails at once/);
  const [b] = [{ tenant: "b", keyId: "k" }];
  for (let i = 0; i < 5; i++) slots.take(b!);
  expect(() => slots.take(b!)).toThrow(/tenant "b"/);
});

it("what other processes run counts, until they say otherwise or fall silent", () => {
  const clock = { ms: 0 };
  const [p, q] = ["p", "q"].map(() => new Slots("queries", lookupOf({ a: { queries_at_once: 2 } }), NO_DEFAULTS, () => clock.ms));
  const spread = (): void => {
    for (const [from, slots] of [["p", p!] as const, ["q", q!] as const]) {
      const text = slots.tell(from);
      if (text !== undefined) for (const [own, each] of [["p", p!] as const, ["q", q!] as const]) expect(each.hear(own, text)).toBe(true);
    }
  };
  expect(p!.tell("p")).toBeUndefined();
  const [first, second] = [p!.take(A1), p!.take(A2)];
  spread();
  expect(() => q!.take(A1)).toThrow(/has 2 queries at once/);
  expect(q!.fields(A1)[1]).toEqual(["RateLimit", '"queries";r=0']);
  first[Symbol.dispose]();
  spread();
  const third = q!.take(A1);
  spread();
  expect(() => p!.take(A1)).toThrow(/has 2 queries at once/);
  third[Symbol.dispose]();
  second[Symbol.dispose]();
  spread();
  expect(p!.tell("p")).toBeUndefined();
  p!.take(A1);
  p!.take(A1);
  spread();
  clock.ms += 1_000;
  expect(() => q!.take(A1)).toThrow(/has 2 queries at once/);
  clock.ms += 1;
  q!.take(A1);
  for (const text of ["", "{}", '{"from":"x","taken":[["a",0]]}', '{"from":"x","taken":[["a",1.5]]}'])
    expect(q!.hear("q", text)).toBe(false);
});

it("who tries often waits longer, who tries all the time has a query in most of a second", () => {
  const clock = { ms: 0 };
  const slots = new Slots("queries", lookupOf({ a: { queries_at_once: 1 } }), NO_DEFAULTS, () => clock.ms);
  const runs = (everyMs: number, forMs: number): number => {
    let [count, held]: [number, Disposable | undefined] = [0, undefined];
    for (const endMs = clock.ms + forMs; clock.ms < endMs; clock.ms += everyMs) {
      held?.[Symbol.dispose]();
      held = undefined;
      try {
        held = slots.take(A1);
        count++;
        slots.take(A2);
      } catch (error) {
        expect(error).toMatchObject({ code: "too_many_queries" });
      }
    }
    held?.[Symbol.dispose]();
    clock.ms += 2_000;
    return count;
  };
  // Each query is held for as long as the pause between tries. Without rest there would be 10, 100 and 1,000 of them.
  expect(runs(1_000, 10_000)).toBe(10);
  expect(runs(100, 10_000)).toBeGreaterThan(10);
  expect(runs(100, 10_000)).toBeLessThan(25);
  expect(runs(10, 10_000)).toBeLessThan(25);
});

it("who was refused more than once within a second presses, and so does its key", () => {
  const clock = { ms: 0 };
  const limits = lookupOf({ a: { queries_at_once: 1 }, "b/k1": { queries_at_once: 1 } });
  const slots = new Slots("queries", limits, NO_DEFAULTS, () => clock.ms);
  const [B1, B2] = [
    { tenant: "b", keyId: "k1" },
    { tenant: "b", keyId: "k2" },
  ];
  const pressing = () => [A1, A2, B1, B2].map((who) => slots.presses(who));
  slots.take(A1);
  slots.take(B1);
  for (const who of [A1, B1]) expect(() => slots.take(who)).toThrow();
  expect(pressing()).toEqual([false, false, false, false]);
  for (const who of [A1, B1]) expect(() => slots.take(who)).toThrow();
  expect(pressing()).toEqual([true, true, true, false]);
  clock.ms += 499;
  expect(pressing()).toEqual([true, true, true, false]);
  clock.ms += 1;
  expect(pressing()).toEqual([false, false, false, false]);
});

it("who goes on trying waits as long as its queries take, and never longer than it was told", () => {
  const clock = { ms: 0 };
  const limits = lookupOf({ a: { queries_at_once: 1, tails_at_once: 1 }, "b/k": { queries_at_once: 2 } });
  const slots = new Slots("queries", limits, NO_DEFAULTS, () => clock.ms);
  const run = (ms: number, tries: number): void => {
    const slot = slots.take(A1);
    for (let i = 0; i < tries; i++) expect(() => slots.take(A2)).toThrow(/has 1 queries at once, its limit queries_at_once$/);
    clock.ms += ms;
    slot[Symbol.dispose]();
  };
  // Nobody was refused, or one who then waits as told: nothing rests.
  for (let i = 0; i < 3; i++) run(30, 0);
  run(30, 1);
  run(1_000, 0);
  run(30, 2);
  expect(slots.fields(A1)[1]).toEqual(["RateLimit", '"queries";r=0']);
  expect(slots.tell("p")).toBe('{"from":"p","taken":[["a",1]]}');
  clock.ms += 29;
  expect(() => slots.take(A1)).toThrow(/has 1 queries at once, .*1 of them ended and rest/);
  clock.ms += 1;
  // Whoever waited as told finds a place, however long the query took; another process hears of it 200 ms later.
  run(700, 2);
  clock.ms += 100;
  run(5_000, 2);
  run(1, 0);
  expect([slots.taken("a"), slots.tell("p"), slots.tell("p")]).toEqual([0, '{"from":"p","taken":[]}', undefined]);
  // Another owner, a key, rests by itself; a tail that ends is no work.
  const other = { tenant: "b", keyId: "k" };
  const both = [slots.take(other), slots.take(other)];
  for (let i = 0; i < 2; i++) expect(() => slots.take(other)).toThrow(/key k of tenant "b"/);
  clock.ms += 10;
  for (const one of both) one[Symbol.dispose]();
  expect(() => slots.take(other)).toThrow(/2 of them/);
  slots.take({ tenant: "b", keyId: "other" })[Symbol.dispose]();
  const tails = new Slots("tails", limits, NO_DEFAULTS, () => clock.ms);
  const tail = tails.take(A1);
  for (let i = 0; i < 2; i++) expect(() => tails.take(A1)).toThrow(/tails at once/);
  clock.ms += 10;
  tail[Symbol.dispose]();
  tails.take(A1)[Symbol.dispose]();
});

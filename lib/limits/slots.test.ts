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
  const slots = new Slots(kind, lookupOf({ a: { [limit]: 2 }, "a/k1": { [limit]: 1 } }), NO_DEFAULTS);
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
  const slots = new Slots("queries", lookupOf(limits), NO_DEFAULTS);
  const held = Array.from({ length: 50 }, () => slots.take(A1));
  expect(slots.fields(A1)).toEqual([]);
  limits.a = { queries_at_once: 3 };
  expect(() => slots.take(A2)).toThrow(/has 3 queries at once/);
  expect(slots.fields(A1)[1]).toEqual(["RateLimit", '"queries";r=0']);
  for (const slot of held) slot[Symbol.dispose]();
  expect(slots.fields(A1)[1]).toEqual(["RateLimit", '"queries";r=3']);
});

it("the installation's limit counts where a tenant has none", () => {
  const slots = new Slots("tails", lookupOf({ b: { tails_at_once: 5 } }), { ...NO_DEFAULTS, tailsAtOnce: 1 });
  slots.take(A1);
  expect(() => slots.take(A2)).toThrow(/tenant "a" has 1 tails at once/);
  const [b] = [{ tenant: "b", keyId: "k" }];
  for (let i = 0; i < 5; i++) slots.take(b!);
  expect(() => slots.take(b!)).toThrow(/tenant "b"/);
});

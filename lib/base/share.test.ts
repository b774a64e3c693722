// A bound with a part for each owner.

import { expect, it } from "vitest";
import { SharedBound } from "./share.ts";

const shared = (percent = 50): SharedBound => new SharedBound(100, percent, "bytes are held", "RELOG_X_MAX");

it("one owner gets its part, the others what is left", () => {
  const bound = shared();
  const [a, b, c] = ["a", "b", "c"].map((owner) => bound.of(owner));
  expect(a!.take(50)).toBeUndefined();
  expect(a!.take(1)).toBe("50 bytes are held for this tenant; RELOG_TENANT_SHARE_MAX allows one tenant 50 (RELOG_X_MAX is 100)");
  expect([b!.take(30), c!.take(20)]).toEqual([undefined, undefined]);
  expect(b!.take(10)).toBe("100 bytes are held; RELOG_X_MAX allows 100");
  b!.give(30);
  expect(c!.take(30)).toBeUndefined();
  a!.give(50);
  c!.give(50);
  expect(bound.used).toBe(0);
});

it("what is refused takes nothing, and a part that was given back is whole again", () => {
  const bound = shared();
  const a = bound.of("a");
  for (let i = 0; i < 3; i++) {
    expect(a.take(50)).toBeUndefined();
    expect(a.take(20)).toMatch(/RELOG_TENANT_SHARE_MAX/);
    a.give(50);
  }
  expect(bound.used).toBe(0);
});

it("work that is alone may grow beyond its owner's part, and beyond the whole; other work of the owner may not", () => {
  const bound = shared();
  const a = bound.of("a");
  expect(a.take(40)).toBeUndefined();
  expect(a.take(40, 40)).toBeUndefined();
  expect(a.take(1)).toMatch(/RELOG_TENANT_SHARE_MAX/);
  expect(bound.of("b").take(20)).toBeUndefined();
  expect(a.take(40, 80)).toMatch(/RELOG_X_MAX allows 100/);
});

it("a part is one unit at least", () => {
  const bound = new SharedBound(1, 1, "queries are running", "RELOG_QUERIES_MAX");
  expect(bound.of("a").take(1)).toBeUndefined();
  expect(bound.of("a").take(1)).toMatch(/allows one tenant 1/);
});

it("an owner that is alone has the whole; what it holds counts as soon as it is not", () => {
  let alone = true;
  const bound = new SharedBound(100, 50, "bytes are held", "RELOG_X_MAX", () => alone);
  const a = bound.of("a");
  expect([a.take(70), a.take(30)]).toEqual([undefined, undefined]);
  expect(a.take(1)).toBe("100 bytes are held; RELOG_X_MAX allows 100");
  alone = false;
  a.give(40);
  expect(a.take(1)).toMatch(/^60 bytes are held for this tenant/);
  expect(bound.of("b").take(40)).toBeUndefined();
});

// The bucket's arithmetic as a table, and its bound over any run.

import fc from "fast-check";
import { expect, it } from "vitest";
import { TokenBucket } from "./bucket.ts";

it.each<
  [what: string, perS: number, burstS: number, charges: [atMs: number, tokens: number][], atMs: number, left: number, waitMs: number]
>([
  ["begins full", 10, 2, [], 0, 20, 0],
  ["is charged", 10, 2, [[0, 5]], 0, 15, 0],
  ["fills again", 10, 2, [[0, 20]], 500, 5, 0],
  ["is never more than full", 10, 2, [[0, 20]], 60_000, 20, 0],
  ["needs one whole token", 10, 2, [[0, 20]], 50, 0, 50],
  ["lets a call through that is larger than itself, and is in debt then", 10, 2, [[0, 120]], 0, 0, 10_100],
  ["pays its debt off", 10, 2, [[0, 120]], 10_099, 0, 1],
  ["is there again after exactly the wait", 10, 2, [[0, 120]], 10_100, 1, 0],
  ["holds one token at least", 0.5, 1, [], 0, 1, 0],
  ["counts large numbers", 1e9, 10, [[0, 2e10]], 0, 0, 10_001],
  [
    "does not mind a clock that stands",
    10,
    2,
    [
      [5, 1],
      [5, 1],
    ],
    5,
    18,
    0,
  ],
])("%s", (_what, perS, burstS, charges, atMs, left, waitMs) => {
  const bucket = new TokenBucket(perS, burstS, 0);
  for (const [at, tokens] of charges) bucket.charge(tokens, at);
  expect([bucket.left(atMs), bucket.admits(atMs), bucket.waitMs(atMs)]).toEqual([left, waitMs === 0, waitMs]);
});

it("keeps what is there when the rate changes, and a debt too", () => {
  const bucket = new TokenBucket(10, 2, 0);
  bucket.charge(15, 0);
  bucket.change(100, 1, 0);
  expect([bucket.left(0), bucket.capacity]).toEqual([5, 100]);
  bucket.change(1, 2, 0);
  expect(bucket.left(0)).toBe(2);
  bucket.charge(12, 0);
  bucket.change(10, 2, 0);
  expect([bucket.left(0), bucket.waitMs(0)]).toEqual([0, 1_100]);
});

it("over any run, what is let in is at most rate * time + capacity + one call", () => {
  const step = fc.record({ waitMs: fc.integer({ min: 0, max: 3_000 }), tokens: fc.integer({ min: 1, max: 500 }) });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: 1, max: 10 }),
      fc.array(step, { maxLength: 200 }),
      (perS, burstS, steps) => {
        const bucket = new TokenBucket(perS, burstS, 0);
        let [now, taken, largest] = [0, 0, 0];
        for (const { waitMs, tokens } of steps) {
          now += waitMs;
          largest = Math.max(largest, tokens);
          const wait = bucket.waitMs(now);
          expect(bucket.admits(now)).toBe(wait === 0);
          if (wait > 0) {
            expect(bucket.admits(now + wait - 1)).toBe(false);
            now += wait;
            expect(bucket.admits(now)).toBe(true);
          }
          bucket.charge(tokens, now);
          taken += tokens;
          expect(taken).toBeLessThanOrEqual((perS * now) / 1_000 + Math.max(1, perS * burstS) + largest);
        }
      },
    ),
  );
});

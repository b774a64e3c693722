import { expect, it } from "vitest";
import type { Policy, Retention } from "./retention.ts";
import {
  adoptRetention,
  classesOf,
  FOR_EVER,
  KEEP_FOR_EVER,
  mayHaveLeft,
  retentionFromWords,
  retentionWords,
  sameRetention,
} from "./retention.ts";

const policy = (days: number, tenants: Readonly<Record<string, number>> = {}): Retention => ({
  days,
  tenants: new Map(Object.entries(tenants)),
});

it.each<[Retention, string]>([
  [KEEP_FOR_EVER, "0"],
  [policy(30, { b: 0, a: 7 }), "30 a:7,b:0"],
  [policy(30, { a: 30 }), "30"],
])("%o in words is %s", (retention, words) => {
  expect(retentionWords(retention)).toBe(words);
  expect(retentionWords(retentionFromWords(words))).toBe(words);
});

it.each(["", "x", "30 a", "30  a:7", "-1", "30 a:7 b:0"])("%j is no policy", (words) => {
  expect(() => retentionFromWords(words)).toThrow();
});

it("is the projectors' policy unless nobody has said one, and a conflict when another one is asked for", () => {
  const own = policy(3);
  const asked = { RELOG_RETENTION_DAYS: "3" };
  expect(adoptRetention(asked, own, "")).toEqual({ retention: own, conflict: undefined });
  expect(adoptRetention({}, KEEP_FOR_EVER, "30 a:7")).toEqual({ retention: policy(30, { a: 7 }), conflict: undefined });
  expect(adoptRetention(asked, own, "3").conflict).toBeUndefined();
  const { retention, conflict } = adoptRetention(asked, own, "30 a:7");
  expect(retention).toEqual(policy(30, { a: 7 }));
  expect(conflict).toContain('says retention "3", the projectors write "30 a:7"');
  expect(() => sameRetention(asked, own, "30")).toThrow("restart the projectors");
  expect(adoptRetention({ RELOG_RETENTION_TENANTS: "a:7" }, policy(0, { a: 7 }), "0").conflict).toBeDefined();
});

it("the classes of a few tenants: the most frequent one is not listed, a tenant once", () => {
  const daysOf = (tenant: string): number => (tenant === "b" ? 7 : 30);
  expect(classesOf({ daysOf }, ["a", "b", "a", "c"])).toEqual({ days: 30, tenants: { b: 7 } });
  expect(classesOf({ daysOf }, ["b"])).toEqual({ days: 7, tenants: {} });
  expect(classesOf({ daysOf }, [])).toEqual(FOR_EVER);
});

it("what may have left is what any class since then would have dropped", () => {
  const day = 86_400_000;
  const nowMs = 1_000 * day;
  const policy = { daysSince: (_: string, sinceMs: number) => (sinceMs < 990 * day ? [30, 7] : [30]) } as unknown as Policy;
  const tenDaysAgo = BigInt(990 * day) * 1_000_000n;
  expect(mayHaveLeft(policy, "a", tenDaysAgo, nowMs, 0)).toBe(true);
  expect(mayHaveLeft(policy, "a", tenDaysAgo, nowMs, 995 * day)).toBe(false);
});

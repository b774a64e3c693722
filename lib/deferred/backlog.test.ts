// What a gateway knows of the backlog between two looks.

import { expect, it } from "vitest";
import { systemClock } from "../base/clock.ts";
import { Backlog } from "./backlog.ts";

it("what this process deferred counts at once, until a look that began later has ended", async () => {
  let seen = Promise.withResolvers<ReadonlyMap<string, number>>();
  const backlog = new Backlog(() => seen.promise, systemClock);
  backlog.note("acme");
  const looking = backlog.refresh();
  expect([backlog.count("acme"), backlog.count("other")]).toEqual([1, 0]);
  backlog.note("acme");
  seen.resolve(new Map([["other", 7]]));
  await looking;
  // What came while it looked may not be in what it saw.
  expect([backlog.count("acme"), backlog.count("other")]).toEqual([1, 7]);
  seen = Promise.withResolvers();
  seen.resolve(new Map());
  await backlog.refresh();
  expect([backlog.count("acme"), backlog.count("other")]).toEqual([0, 0]);
});

it("a look that fails leaves what was known", async () => {
  const answers = [Promise.resolve(new Map([["acme", 3]])), Promise.reject(new Error("away"))];
  const backlog = new Backlog(() => answers.shift()!, systemClock);
  await backlog.refresh();
  backlog.note("acme");
  await expect(backlog.refresh()).rejects.toThrow("away");
  expect(backlog.count("acme")).toBe(4);
});

it("whoever waits for the end is told by the look that sees it, or waits in vain for so long", async () => {
  let now = new Map([["acme", 1]]);
  const backlog = new Backlog(async () => now, systemClock);
  await backlog.refresh();
  expect(await backlog.ended("acme", 1)).toBe(false);
  const waiting = backlog.ended("acme", 60_000);
  now = new Map();
  await backlog.refresh();
  expect(await waiting).toBe(true);
});

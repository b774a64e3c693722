import { expect, it } from "vitest";
import { seldom } from "./seldom.ts";

it("says once in a while, and how much it did not say", () => {
  let now = 0;
  const say = seldom(100, () => now);
  expect([say(), say(), say()]).toEqual([{ since: 0 }, undefined, undefined]);
  now = 100;
  expect([say(), say()]).toEqual([{ since: 2 }, undefined]);
});

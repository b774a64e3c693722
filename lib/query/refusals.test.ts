// Refusals that wait before they are answered.

import { expect, it } from "vitest";
import { holdBack } from "./refusals.ts";

it("so many wait, more do not, and one that leaves does not either", async () => {
  const hold = holdBack(60_000, 2);
  const [first, second] = [new AbortController(), new AbortController()];
  const ended: string[] = [];
  const waiting = [first, second].map((leave, i) => hold(leave.signal).then(() => ended.push(`held ${i}`)));
  await hold(new AbortController().signal).then(() => ended.push("over"));
  first.abort();
  await waiting[0];
  const third = new AbortController();
  waiting.push(hold(third.signal).then(() => ended.push("held again")));
  await hold(new AbortController().signal).then(() => ended.push("over"));
  third.abort();
  second.abort();
  await Promise.all(waiting);
  expect(ended.slice(0, 3)).toEqual(["over", "held 0", "over"]);
  expect(ended.slice(3).toSorted()).toEqual(["held 1", "held again"]);
  await holdBack(0)(new AbortController().signal);
});

// Counting drops against a register that fails in every way.

import { expect, it } from "vitest";
import { systemClock } from "../base/clock.ts";
import type { GapPorts, OpenGap } from "./gaps.ts";
import { Gaps } from "./gaps.ts";

/** Registers in memory; `fault` says what goes wrong with the n-th write. */
function house(fault: (n: number) => "before" | "after" | "taken" | undefined = () => undefined) {
  const registers = new Map<string, { value: OpenGap; revision: number }>();
  const appended: { tenant: string; shard: number }[] = [];
  let [writes, revision] = [0, 0];
  const ports: GapPorts = {
    register: (key) => ({
      read: async () => registers.get(key),
      async write(value, at) {
        const wrong = fault(writes++);
        if (wrong === "before") throw new Error("away");
        if (wrong === "taken" || (registers.get(key)?.revision ?? 0) !== at) return undefined;
        registers.set(key, { value, revision: ++revision });
        if (wrong === "after") throw new Error("away");
        return revision;
      },
    }),
    keys: async () => [...registers.keys()],
    forget: async (key) => void registers.delete(key),
    append: async (message) => ({ seq: appended.push(message), duplicate: false }),
    lastSeq: async () => 0,
    isStored: async () => false,
    stored: () => undefined,
    shards: 2,
    clock: systemClock,
  };
  const gaps = new Gaps(ports, 60_000, async () => undefined);
  return { gaps, registers, appended, writes: () => writes };
}

const drop = (tenant = "acme", reason = "records_per_day (1)") => ({ tenant, reason, records: 2, size: 10 });
const sums = (registers: Map<string, { value: OpenGap }>) =>
  [...registers.values()].map(({ value: { tenant, records, bytes, calls } }) => [tenant, records, bytes, calls]);

it("drops at once are one write, of one gap a tenant and reason", async () => {
  const { gaps, registers, writes } = house();
  const answers = await Promise.all([
    ...Array.from({ length: 50 }, () => gaps.add(drop())),
    gaps.add(drop("beta")),
    gaps.add(drop("acme", "other")),
  ]);
  expect(sums(registers)).toEqual([
    ["acme", 100, 500, 50],
    ["beta", 2, 10, 1],
    ["acme", 2, 10, 1],
  ]);
  expect([writes(), new Set(answers.map(({ id }) => id)).size]).toEqual([3, 3]);
});

it.each([
  "before",
  "after",
] as const)("a write that fails (%s it took effect) is 503 for its calls; the next drop begins another gap", async (kind) => {
  const { gaps, registers } = house((n) => (n === 1 ? kind : undefined));
  const first = await gaps.add(drop());
  await expect(gaps.add(drop())).rejects.toMatchObject({ code: "stream_unavailable", retryAfterS: 2 });
  const third = await gaps.add(drop());
  expect(third.id).not.toBe(first.id);
  expect(sums(registers)).toEqual([
    ["acme", kind === "after" ? 4 : 2, kind === "after" ? 20 : 10, kind === "after" ? 2 : 1],
    ["acme", 2, 10, 1],
  ]);
});

it("a gap that someone else closed is left alone; the drop is counted in another", async () => {
  const { gaps, registers } = house((n) => (n === 1 ? "taken" : undefined));
  const [first, second] = [await gaps.add(drop()), await gaps.add(drop())];
  expect([second.id === first.id, sums(registers)]).toEqual([
    false,
    [
      ["acme", 2, 10, 1],
      ["acme", 2, 10, 1],
    ],
  ]);
});

it("writing all appends each gap once and leaves no register; nothing is written while a gap grows", async () => {
  const { gaps, registers, appended } = house();
  await Promise.all([gaps.add(drop()), gaps.add(drop("beta"))]);
  await gaps.write();
  expect([appended.length, registers.size]).toEqual([0, 2]);
  await gaps.write(true);
  await gaps.write(true);
  expect([appended.map(({ tenant }) => tenant).toSorted(), registers.size]).toEqual([["acme", "beta"], 0]);
});

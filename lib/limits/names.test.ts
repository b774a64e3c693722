// The names of a day: one process, several that agree through a register, midnight, restarts and faults.

import { expect, it } from "vitest";
import { DAY_MS } from "../base/clock.ts";
import { waitFor } from "../base/loop.ts";
import type { NamesOfDay, NamesPorts } from "./names.ts";
import { AttributeNames } from "./names.ts";
import { lookupOf, NO_DEFAULTS } from "./testing.ts";
import type { Limits } from "./values.ts";

const NOON_MS = Date.parse("2026-01-02T12:00:00Z");

/** Registers with compare-and-set. */
class Seats implements NamesPorts {
  readonly values = new Map<string, { value: NamesOfDay; revision: number }>();
  fails = false;
  writes = 0;
  /** Who is told that a register has more. */
  readonly listeners: AttributeNames[] = [];
  told = 0;

  tell(tenant: string): void {
    this.told++;
    for (const names of this.listeners) names.heard(tenant);
  }

  async read(tenant: string) {
    if (this.fails) throw new Error("away");
    return this.values.get(tenant);
  }

  async write(tenant: string, value: NamesOfDay, revision: number) {
    if (this.fails) throw new Error("away");
    if ((this.values.get(tenant)?.revision ?? 0) !== revision) return undefined;
    this.writes++;
    this.values.set(tenant, { value, revision: revision + 1 });
    return revision + 1;
  }
}

function house(limits: Record<string, Limits>, seats = new Seats(), clock = { ms: NOON_MS }) {
  const faults: unknown[] = [];
  const made = (by: string): AttributeNames =>
    new AttributeNames(lookupOf(limits), NO_DEFAULTS, seats, { now: () => clock.ms, monotonicMs: () => clock.ms }, by, (error) => {
      if (error !== undefined) faults.push(error);
    });
  const admitted = async (names: AttributeNames, asked: readonly string[], tenant = "a"): Promise<string[]> => {
    const day = await names.of(tenant);
    return asked.filter((name) => day.admits(name));
  };
  return { clock, seats, faults, made, admitted, limits };
}

it("a day has so many names; one that was admitted stays so, and memory answers once the register was read", async () => {
  const { made, admitted, seats } = house({ a: { attribute_names_per_day: 2 } });
  const names = made("p");
  expect(names.of("a")).toBeInstanceOf(Promise);
  expect(await admitted(names, ["x", "y", "z", "x", "y"])).toEqual(["x", "y", "x", "y"]);
  expect(names.of("a")).not.toBeInstanceOf(Promise);
  expect(await admitted(names, ["x", "z"], "b")).toEqual(["x", "z"]);
  await names.flush();
  await names.flush();
  expect(seats.writes).toBe(2);
  expect(seats.values.get("a")!.value).toEqual({ day: "2026-01-02", names: expect.stringMatching(/^.{16}$/), by: "p" });
});

it("processes agree after a flush: who was slower loses the names for which there is no room", async () => {
  const { made, admitted } = house({ a: { attribute_names_per_day: 3 } });
  const [p, q] = [made("p"), made("q")];
  expect(await admitted(p, ["1", "2"])).toEqual(["1", "2"]);
  expect(await admitted(q, ["2", "3", "4"])).toEqual(["2", "3", "4"]);
  await p.flush();
  await q.flush();
  expect(await admitted(q, ["1", "2", "3", "4"])).toEqual(["1", "2", "3"]);
  expect(await admitted(p, ["5"])).toEqual(["5"]);
  await p.flush();
  expect(await admitted(p, ["1", "2", "3", "4", "5"])).toEqual(["1", "2", "3"]);
});

it("who is told of another's names knows them before it admits names of its own; what is in the register stays", async () => {
  const { made, admitted, seats } = house({ a: { attribute_names_per_day: 3 } });
  const [p, q] = [made("p"), made("q")];
  seats.listeners.push(p, q);
  const end = new AbortController();
  const running = [p.run(end.signal), q.run(end.signal)];
  expect(await admitted(q, ["1"])).toEqual(["1"]);
  await waitFor("the first name", () => seats.told === 1 || undefined);
  expect(await admitted(p, ["1", "2", "3"])).toEqual(["1", "2", "3"]);
  await waitFor("the others", () => seats.told === 2 || undefined);
  await q.flush();
  expect(await admitted(q, ["4", "3", "2", "1"])).toEqual(["3", "2", "1"]);
  // What is new at the end is written too.
  expect(await admitted(p, ["x"], "b")).toEqual(["x"]);
  end.abort();
  await Promise.all(running);
  expect(await admitted(made("r"), ["4", "3", "2", "1"])).toEqual(["3", "2", "1"]);
  expect(seats.values.get("b")!.value.by).toBe("p");
});

it("what is written while a register is being read is read again", async () => {
  const { made, admitted, seats } = house({ a: { attribute_names_per_day: 1 } });
  const [p, q] = [made("p"), made("q")];
  seats.listeners.push(q);
  const loading = q.of("a");
  await admitted(p, ["1"]);
  await p.flush();
  expect((await loading).admits("2")).toBe(true);
  await q.flush();
  expect(await admitted(q, ["2", "1"])).toEqual(["1"]);
});

it("processes that write at once are all in the register", async () => {
  const { made, admitted, limits } = house({ a: {} });
  const all = ["p", "q", "r", "s"].map(made);
  for (const [i, names] of all.entries()) await admitted(names, [`${i}`]);
  await Promise.all(all.map((names) => names.flush()));
  for (const names of all) await names.flush();
  const late = made("t");
  await late.of("a");
  limits.a = { attribute_names_per_day: 4 };
  expect(await admitted(late, ["4", "0", "1", "2", "3"])).toEqual(["0", "1", "2", "3"]);
});

it("a restart changes nothing, and the next day begins anew", async () => {
  const { made, admitted, clock } = house({ a: { attribute_names_per_day: 1 } });
  const before = made("p");
  await admitted(before, ["x"]);
  await before.flush();
  const after = made("q");
  expect(await admitted(after, ["y", "x"])).toEqual(["x"]);
  clock.ms += DAY_MS / 2;
  expect(await admitted(after, ["y", "x"])).toEqual(["y"]);
  await after.flush();
  // One that was still in the day before does not write over it.
  await before.flush();
  expect(await admitted(made("r"), ["x", "y"])).toEqual(["y"]);
});

it("a limit that is raised makes room, one that is lowered takes nothing away", async () => {
  const { made, admitted, limits } = house({ a: { attribute_names_per_day: 2, attributes_per_record: 7 } });
  const names = made("p");
  expect(await admitted(names, ["1", "2", "3"])).toEqual(["1", "2"]);
  limits.a = { attribute_names_per_day: 3 };
  expect(await admitted(names, ["3", "4"])).toEqual(["3"]);
  await names.flush();
  limits.a = { attribute_names_per_day: 1 };
  await names.flush();
  expect(await admitted(names, ["1", "2", "3", "4"])).toEqual(["1", "2", "3"]);
  expect((await names.of("a")).perRecordMax).toBe(Number.POSITIVE_INFINITY);
});

it("while the register is away names are admitted from what is known, and written later", async () => {
  const { made, admitted, seats, faults } = house({ a: { attribute_names_per_day: 2 } });
  const other = made("q");
  await admitted(other, ["w"]);
  await other.flush();
  seats.fails = true;
  const names = made("p");
  expect(await admitted(names, ["x", "y", "z"])).toEqual(["x", "y"]);
  await names.flush();
  expect(faults).toHaveLength(2);
  seats.fails = false;
  await names.flush();
  expect(await admitted(names, ["w", "x", "y"])).toEqual(["w", "x"]);
  expect(await admitted(made("r"), ["y", "x", "w"])).toEqual(["x", "w"]);
});

it("a tenant's names are bounded whatever its limit says", async () => {
  const { made } = house({ a: { attribute_names_per_day: 1_000_000 } });
  const day = await made("p").of("a");
  let admitted = 0;
  for (let i = 0; i < 30_000; i++) if (day.admits(`n${i}`)) admitted++;
  expect(admitted).toBe(20_000);
});

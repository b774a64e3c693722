// The removal of a tenant against tables in memory: rounds, reasons to wait, and figures that survive.

import { pino } from "pino";
import { expect, it } from "vitest";
import { systemClock } from "../base/clock.ts";
import type { Register } from "../streams/cas.ts";
import type { Erasure } from "./job.ts";
import { added, earlier, later } from "./job.ts";
import type { Certified, ErasurePorts } from "./ports.ts";
import { eraseTenant, runErasures } from "./run.ts";

const log = pino({ level: "silent" });
const TOMBSTONE = { tenant: "gone", deleted: "2026-01-01T00:00:00.000Z", seq: 7 };
const NONE = { streams: [], archive: null, kept: [] };

function world(rows: Record<string, number>) {
  const tables = new Map(Object.entries(rows));
  const certified: Certified[] = [];
  const state = {
    unaware: [] as string[],
    refused: "",
    back: 0,
    letters: 2,
    dies: "",
    asked: [] as string[],
    /** Looks at removals for which one of somebody else runs. */
    others: 0,
    entry: undefined as { value: Erasure; revision: number } | undefined,
  };
  const register: Register<Erasure> = {
    read: async () => state.entry,
    async write(value, revision) {
      if ((state.entry?.revision ?? 0) !== revision) return undefined;
      state.entry = { value, revision: revision + 1 };
      return revision + 1;
    },
  };
  const ports: ErasurePorts = {
    site: "main",
    clock: systemClock,
    owner: "here",
    leaseMs: 300,
    open: () => (certified.length === 0 ? [TOMBSTONE] : []),
    register: () => register,
    tidy: async () => undefined,
    async forget() {
      state.entry = undefined;
    },
    unaware: async (seq) => (seq === TOMBSTONE.seq ? state.unaware : ["another sequence"]),
    tables: async () => [...tables.keys()],
    async rows(table) {
      const n = tables.get(table) ?? 0;
      return { rows: n, counted: n, first: n > 0 ? "2026-01-01T00:00:00Z" : null, last: n > 0 ? "2026-01-02T00:00:00Z" : null };
    },
    closeUsage: async () => void state.asked.push(`usage of ${[...tables.values()].join()}`),
    async remove(table) {
      state.asked.push(table);
      if (state.refused === "") tables.set(table, 0);
    },
    async removal(table) {
      if (state.others-- > 0) return "";
      const refused = state.refused !== "" && state.asked.includes(table) && (tables.get(table) ?? 0) > 0;
      return refused ? state.refused : undefined;
    },
    messages: async () => ({ deadLetters: state.letters, deferred: 0 }),
    async purge() {
      state.letters = 0;
      // What comes late comes after the first removal.
      if (state.back > 0) tables.set("g1", state.back);
      state.back = 0;
    },
    forgetNames: async () => ["gap.gone"],
    remains: async () => NONE,
    certify: async (_, certificate) => void certified.push(certificate),
    failpoint(step) {
      if (step === state.dies) throw new Error(`died at ${step}`);
    },
  };
  const erase = () => eraseTenant(ports, TOMBSTONE, log, new AbortController().signal);
  return { ports, state, tables, certified, erase };
}

it("counts, removes, counts again and certifies", async () => {
  const { erase, certified, state } = world({ g1: 3, g2: 4 });
  expect(await erase()).toBeUndefined();
  expect(certified).toMatchObject([
    {
      site: "main",
      tombstone: 7,
      rows: 7,
      tables: [
        { table: "g1", rows: 3 },
        { table: "g2", rows: 4 },
      ],
      first_timestamp: "2026-01-01T00:00:00Z",
      last_timestamp: "2026-01-02T00:00:00Z",
      dead_letters: 2,
      registers: ["gap.gone"],
    },
  ]);
  expect(state.entry).toBeUndefined();
  expect(state.asked).toEqual(["usage of 3,4", "g1", "g2"]);
});

it("what comes back between removal and check begins another round, and is counted too", async () => {
  const { erase, certified, state } = world({ g1: 3 });
  state.back = 2;
  expect(await erase()).toBeUndefined();
  expect(certified).toMatchObject([{ rows: 5, tables: [{ table: "g1", rows: 5 }] }]);
});

it("waits while somebody may not know, or the engine refuses, says why, and goes on from there", async () => {
  const { erase, certified, state } = world({ g1: 3 });
  state.unaware = ["checkpoint.main.1.0"];
  expect(await erase()).toBe("checkpoint.main.1.0 may not know of the deletion yet");
  expect(state.entry!.value).toMatchObject({
    phase: "waiting",
    error: expect.stringContaining("checkpoint.main.1.0") as string,
    owner: "",
  });
  state.unaware = [];
  state.refused = "disk is full";
  expect(await erase()).toBe("g1: disk is full");
  expect(await erase()).toBe("g1: disk is full");
  expect(state.asked.filter((table) => table === "g1")).toHaveLength(1);
  expect([state.entry!.value.phase, certified]).toEqual(["removing", []]);
  state.refused = "";
  expect(await erase()).toBeUndefined();
  expect(certified).toMatchObject([{ rows: 3, dead_letters: 2 }]);
});

it("a removal of another tenant that is under way is not taken for this one", async () => {
  const { erase, certified, state } = world({ g1: 3 });
  state.others = 1;
  expect(await erase()).toBe("g1: a removal that was under way was not this one");
  expect(await erase()).toBeUndefined();
  expect(certified).toMatchObject([{ rows: 3, tables: [{ table: "g1", rows: 3 }] }]);
});

it.each([
  "waiting",
  "counting",
  "removing",
  "removed",
  "purged",
  "checking",
  "certifying",
  "certified",
])("a runner that ends at %s leaves figures with which the next one goes on", async (step) => {
  const { erase, certified, state } = world({ g1: 3 });
  state.dies = step;
  expect(await erase()).toBe(`died at ${step}`);
  state.dies = "";
  expect(await erase()).toBeUndefined();
  expect(certified.at(-1)).toMatchObject({ rows: 3, dead_letters: 2, registers: ["gap.gone"] });
});

it("the job goes on until all is certified", async () => {
  const { ports, certified } = world({ g1: 3 });
  const stop = new AbortController();
  const certify = ports.certify;
  await runErasures({ ...ports, certify: (...args) => certify(...args).finally(() => stop.abort()) }, log, stop.signal);
  expect(certified).toHaveLength(1);
});

it("sums by table; the earlier and the later of times that may be absent", () => {
  expect(
    added(
      [{ table: "b", rows: 1 }],
      [
        { table: "a", rows: 2 },
        { table: "b", rows: 3 },
      ],
    ),
  ).toEqual([
    { table: "a", rows: 2 },
    { table: "b", rows: 4 },
  ]);
  expect([earlier(null, "b"), earlier("a", "b"), later(null, "b"), later("a", "b"), later("a", null)]).toEqual(["b", "a", "b", "b", "a"]);
});

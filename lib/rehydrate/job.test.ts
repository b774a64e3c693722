import { expect, it } from "vitest";
import { DAY_MS } from "../base/clock.ts";
import { freshJob, percentOf, rehydrateFault, rehydrateSpec, sameRange, shown, specOf } from "./job.ts";
import { isOver } from "./runner.ts";

const bounds = { expiresMs: 7 * DAY_MS, expiresMaxMs: 90 * DAY_MS };
const range = { since: "2026-05-01T00:00:00Z", until: "2026-05-02T00:00:00+01:00" };
const specFor = (more: Record<string, unknown> = {}) => specOf(rehydrateSpec.parse({ name: "may", ...range, ...more }), bounds);

it("is every tenant's, for the default time, in UTC", () => {
  expect(specFor()).toEqual({
    name: "may",
    since: "2026-05-01T00:00:00.000Z",
    until: "2026-05-01T23:00:00.000Z",
    tenant: "",
    expiresMs: 7 * DAY_MS,
    skipMissing: false,
  });
  expect(specFor({ tenant: "a", expires: "36h", skipMissing: true })).toMatchObject({
    tenant: "a",
    expiresMs: 1.5 * DAY_MS,
    skipMissing: true,
  });
});

it.each([
  ["a capital in the name", { name: "May" }],
  ["an empty name", { name: "" }],
  ["a name of 41", { name: "x".repeat(41) }],
  ["a name that is a table's behind another", { name: "may_local" }],
  ["a quote in the name", { name: "a`b" }],
  ["a line break behind the name", { name: "may\n" }],
  ["a time without a zone", { since: "2026-05-01T00:00:00" }],
  ["an order of the wrong way round", { since: "2026-05-03T00:00:00Z" }],
  ["an empty range", { since: range.until }],
  ["a tenant that is none", { tenant: "A b" }],
  ["a time to keep it beyond the limit", { expires: "91d" }],
  ["no time to keep it", { expires: "0" }],
  ["something unknown", { rate: 1 }],
])("refuses %s", (_, more) => {
  expect(() => specFor(more)).toThrow();
});

it("is the same work when the range and the tenant are, whatever the rest", () => {
  expect(sameRange(specFor(), specFor({ expires: "1d", skipMissing: true }))).toBe(true);
  expect(sameRange(specFor(), specFor({ tenant: "a" }))).toBe(false);
});

it("says how far it is, and all of it only at the end", () => {
  const job = freshJob("id", specFor(), "command", 0);
  expect([percentOf(job), percentOf({ ...job, done: 42, total: 100 }), percentOf({ ...job, done: 100, total: 100 })]).toEqual([0, 42, 99]);
  expect(percentOf({ ...job, phase: "done" })).toBe(100);
  expect(shown(job)).toMatchObject({ table: "archive_may", tenant: null, expires: "1970-01-08T00:00:00.000Z", owner: null });
});

it("is over at its time, and once", () => {
  const job = freshJob("id", specFor(), "command", 0);
  expect([isOver(job, 7 * DAY_MS - 1), isOver(job, 7 * DAY_MS), isOver({ ...job, phase: "dropping" }, 7 * DAY_MS)]).toEqual([
    false,
    true,
    false,
  ]);
});

it.each([
  ["7d", "90d", undefined],
  ["7d", "1d", "at most RELOG_REHYDRATE_EXPIRES_MAX"],
  ["0", "1d", "at least"],
])("settings %s of at most %s", (one, most, fault) => {
  const ms = (text: string): number => Number.parseInt(text, 10) * DAY_MS;
  const said = rehydrateFault({ rehydrateExpiresMs: ms(one), rehydrateExpiresMaxMs: ms(most) });
  if (fault === undefined) expect(said).toBeUndefined();
  else expect(said).toContain(fault);
});

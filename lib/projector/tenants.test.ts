import { expect, it } from "vitest";
import { RelogError } from "../base/errors.ts";
import type { Envelope, StoredMessage } from "../event/envelope.ts";
import { ControlReplaced } from "../streams/control.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { Verdict } from "./message.ts";
import { boundedByTenants, knowAsMuch, PLAN_TENANTS_MAX, passDeleted, planOf, sayKnown } from "./tenants.ts";

const message = (seq: number, tenant: string): StoredMessage => ({
  seq,
  subject: `logs.0.${tenant}`,
  payload: new Uint8Array(),
  storedMs: 0,
  header: () => "",
  pairs: () => [],
});
const batch = (seq: number, tenant: string): Verdict => ({
  kind: "batch",
  seq,
  message: message(seq, tenant),
  envelope: { tenant, records: 1 } as Envelope,
});
const poison = (seq: number, tenant: string): Verdict => ({
  kind: "poison",
  seq,
  message: message(seq, tenant),
  tenant,
  reason: "frame_invalid",
  detail: "",
});

/** Accounts that learn of everything when they are asked to. */
function rules(days: Readonly<Record<string, number>> = {}, deleted: readonly string[] = []) {
  let position = 5;
  return {
    daysOf: (tenant: string) => days[tenant] ?? 30,
    isDeleted: (tenant: string) => deleted.includes(tenant),
    position: () => position,
    refresh: async () => {
      position = 9;
    },
  };
}

const claimed = (accounts: number | undefined, plan: Checkpoint["plan"] = null) => {
  const written: unknown[] = [];
  const value = { next: 1, plan, stream: "", owner: "", writes: 0, ...(accounts === undefined ? {} : { accounts }) };
  return { value, written, change: async (patch: unknown) => void written.push(patch) };
};

it("passes over what is a deleted tenant's, whatever it was judged to be", () => {
  const verdicts = passDeleted([batch(1, "a"), batch(2, "gone"), poison(3, "gone"), poison(4, "a")], rules({}, ["gone"]));
  expect(verdicts.map(({ seq, kind }) => [seq, kind])).toEqual([
    [1, "batch"],
    [2, "passed"],
    [3, "passed"],
    [4, "poison"],
  ]);
});

it("a plan fixes the classes of its tenants alone, the most frequent one unnamed", () => {
  const { plan, accounts, verdicts } = planOf(
    7,
    [batch(7, "a"), batch(8, "b"), batch(9, "c"), batch(10, "gone")],
    rules({ b: 7, z: 1 }, ["gone"]),
    0,
  );
  expect(plan).toMatchObject({ from: 7, to: 10, classes: { days: 30, tenants: { b: 7 } } });
  expect(verdicts.at(-1)!.kind).toBe("passed");
  expect(accounts).toBe(5);
});

it("a plan is of so many tenants at most; the rest is the next one's", () => {
  const many = Array.from({ length: PLAN_TENANTS_MAX + 10 }, (_, i) => batch(i + 1, `t${i}`));
  expect(boundedByTenants(many)).toHaveLength(PLAN_TENANTS_MAX);
  expect(planOf(1, many, rules(), 0).plan.to).toBe(PLAN_TENANTS_MAX);
  const same = Array.from({ length: PLAN_TENANTS_MAX + 10 }, (_, i) => batch(i + 1, "a"));
  expect(boundedByTenants(same)).toHaveLength(same.length);
});

it("an owner that knows less than the one before it learns first", async () => {
  const behind = rules();
  await knowAsMuch(claimed(9), behind);
  expect(behind.position()).toBe(9);
  const level = rules();
  await knowAsMuch(claimed(5), level);
  expect(level.position()).toBe(5);
});

it("a new seat learns all there is, or nothing begins; a CONTROL that was made again has nothing to teach", async () => {
  const here = rules();
  await knowAsMuch(claimed(undefined), here);
  expect(here.position()).toBe(9);
  const failing = (cause: Error) => ({
    ...rules(),
    refresh: () => Promise.reject(new RelogError("stream_unavailable", "the accounts cannot be read", { cause, retryAfterS: 2 })),
  });
  await expect(knowAsMuch(claimed(undefined), failing(new Error("503")))).rejects.toThrow("cannot be read");
  await expect(knowAsMuch(claimed(9), failing(new ControlReplaced("again")))).rejects.toThrow("cannot be read");
  await knowAsMuch(claimed(undefined), failing(new ControlReplaced("again")));
});

it("an idle owner says what it knows, once, and never while a plan of before is open", async () => {
  const [fresh, known, busy] = [claimed(undefined), claimed(5), claimed(3, { from: 1, to: 1, token: "t" })];
  for (const claim of [fresh, known, busy]) await sayKnown(claim, rules());
  expect([fresh.written, known.written, busy.written]).toEqual([[{ accounts: 5 }], [], []]);
});

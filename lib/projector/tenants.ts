// What a shard's worker asks of the accounts: whose records are stored no more, and how long those of others stay.
//
// Promises: what a plan stores was judged with all that the accounts said when it was written, and the checkpoint says how much
// that was: whoever deletes a tenant sees when no plan can hold its records any more. The plan fixes the classes, so that
// carrying it out again stores the same rows.

import { newBatchId } from "../event/ids.ts";
import type { Classes, Policy } from "../event/retention.ts";
import { classesOf } from "../event/retention.ts";
import { isControlReplaced } from "../streams/control.ts";
import type { Claim } from "../streams/lease.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { Verdict } from "./message.ts";

/** The part of the accounts that concerns a projection. */
export type TenantRules = Pick<Policy, "daysOf" | "isDeleted" | "position" | "refresh">;

/** Tenants of one plan: they stand in the checkpoint and in the insert's statement when their classes differ. */
export const PLAN_TENANTS_MAX = 1_500;

const tenantOf = (verdict: Verdict): string => verdict.message.subject.split(".")[2] ?? "";

/** The verdicts, with those on messages of deleted tenants turned into "passed". */
export function passDeleted(verdicts: readonly Verdict[], { isDeleted }: Pick<TenantRules, "isDeleted">): Verdict[] {
  return verdicts.map((verdict) =>
    verdict.kind !== "passed" && isDeleted(tenantOf(verdict)) ? { kind: "passed", seq: verdict.seq, message: verdict.message } : verdict,
  );
}

/** The classes of the records that verdicts store. */
export function classesFor(verdicts: readonly Verdict[], rules: Pick<TenantRules, "daysOf">): Classes {
  return classesOf(
    rules,
    verdicts.flatMap((verdict) => (verdict.kind === "batch" ? [verdict.envelope.tenant] : [])),
  );
}

/** As many of the verdicts as one plan may hold. */
export function boundedByTenants(verdicts: readonly Verdict[]): readonly Verdict[] {
  if (verdicts.length <= PLAN_TENANTS_MAX) return verdicts;
  const tenants = new Set<string>();
  const end = verdicts.findIndex((verdict) => tenants.add(tenantOf(verdict)).size > PLAN_TENANTS_MAX);
  return end < 0 ? verdicts : verdicts.slice(0, end);
}

/** A plan of messages from `from` on, and how much of the accounts it was made with: both go into the checkpoint at once. */
export function planOf(from: number, gathered: readonly Verdict[], rules: TenantRules, nowMs: number) {
  const verdicts = passDeleted(boundedByTenants(gathered), rules);
  const plan = { from, to: from + verdicts.length - 1, token: newBatchId(nowMs), classes: classesFor(verdicts, rules) };
  return { verdicts, plan, accounts: rules.position() };
}

/**
 * Learns as much of the accounts as an earlier owner knew: what that one has left out must not be stored by this one. A seat that is
 * new learns all there is: whoever deleted a tenant has not waited for it. When NATS was lost with all it held, what is known is all.
 */
export async function knowAsMuch(claim: Pick<Claim<Checkpoint>, "value">, rules: TenantRules): Promise<void> {
  const { accounts } = claim.value;
  if (accounts !== undefined && accounts <= rules.position()) return;
  try {
    await rules.refresh();
  } catch (error) {
    if (accounts !== undefined || !isControlReplaced(error)) throw error;
  }
}

/** Lets the checkpoint of an idle owner say how much is known, when that is more than it says. */
export async function sayKnown(claim: Pick<Claim<Checkpoint>, "value" | "change">, rules: TenantRules): Promise<void> {
  const accounts = rules.position();
  if (accounts > (claim.value.accounts ?? 0) && claim.value.plan === null) await claim.change({ accounts });
}

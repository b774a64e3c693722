// What a tenant's quotas say of a call, as the gateway asks.

import { RelogError } from "../base/errors.ts";

/** Reasons name the quota in words for people: `records_per_day (1000) is used up until 2026-01-03T00:00:00+01:00`. */
export type QuotaVerdict =
  | { readonly kind: "within" }
  | {
      readonly kind: "reject" | "drop" | "defer";
      readonly reason: string;
      readonly retryAfterS: number;
      /** For machines: quota, limit, used, until. */
      readonly details?: Readonly<Record<string, unknown>>;
    };

export interface QuotaPort {
  /** What becomes of a tenant's call that comes now. Synchronous: the hot path asks for each call. */
  verdict(tenant: string): QuotaVerdict;
  /** Told of each message that JetStream acknowledged for the first time, so that this process counts it at once. */
  stored(message: {
    readonly tenant: string;
    readonly shard: number;
    readonly seq: number;
    readonly records: number;
    readonly size: number;
  }): void;
}

/** No quotas: for processes and tests without accounts. */
export const NO_QUOTAS: QuotaPort = { verdict: () => ({ kind: "within" }), stored: () => undefined };

/** The refusal of a call that is over a quota. */
export function quotaExceeded({ reason, retryAfterS, details }: Exclude<QuotaVerdict, { readonly kind: "within" }>): RelogError {
  return new RelogError("quota_exceeded", reason, { retryAfterS, details: { ...details } });
}

/**
 * Refuses a call before anything of it is read, when that is certain: one with an idempotency key may repeat a call that was stored.
 * @throws RelogError quota_exceeded
 */
export function refuseEarly(verdict: QuotaVerdict, idempotencyKey: string | undefined): void {
  if (verdict.kind === "reject" && idempotencyKey === undefined) throw quotaExceeded(verdict);
}

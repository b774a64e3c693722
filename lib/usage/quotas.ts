// What is left of a tenant's quotas, and when they end at the present pace.

import { DAY_MS } from "../base/clock.ts";
import type { Figures, Window, Windows } from "../store/usage.ts";

export const QUOTAS = ["records_per_day", "bytes_per_day", "records_per_month", "bytes_per_month"] as const;
export type QuotaName = (typeof QUOTAS)[number];
export type QuotaAmounts = Readonly<Partial<Record<QuotaName, number | null | undefined>>>;

export interface QuotaState {
  readonly quota: QuotaName;
  readonly limit: number;
  readonly used: number;
  readonly left: number;
  readonly window: { readonly fromMs: number; readonly toMs: number };
  /** When it is used up if the pace stays; null when that is not before the window turns. */
  readonly endsMs: number | null;
}

/** What a quota counts, and over which window. */
export function partsOf(quota: QuotaName): { readonly of: "records" | "bytes"; readonly per: "day" | "month" } {
  const [of, , per] = quota.split("_");
  return { of: of as "records" | "bytes", per: per as "day" | "month" };
}

/**
 * The pace is the larger of two means: of the last 24 hours, so that a rise is seen and a night is not taken for the end, and of
 * the window so far, so that a burst within it counts. A projection that errs warns too early.
 * @param last usage of the last 24 hours; undefined when that is not known
 */
export function quotaStates(
  amounts: QuotaAmounts,
  windows: Pick<Windows, "day" | "month">,
  last: Figures | undefined,
  nowMs: number,
): QuotaState[] {
  return QUOTAS.flatMap((quota) => {
    const limit = amounts[quota];
    if (limit === null || limit === undefined) return [];
    const { of, per } = partsOf(quota);
    const window: Window = windows[per];
    const used = window[of];
    const left = Math.max(0, limit - used);
    const perMs = Math.max((last?.[of] ?? 0) / DAY_MS, used / Math.max(1, nowMs - window.fromMs));
    const endsMs = left === 0 ? nowMs : perMs === 0 ? Number.POSITIVE_INFINITY : Math.ceil(nowMs + left / perMs);
    const { fromMs, toMs } = window;
    return [{ quota, limit, used, left, window: { fromMs, toMs }, endsMs: endsMs < toMs ? endsMs : null }];
  });
}

// Closing usage: what the live generation counts is taken over into the table that outlives its records.
//
// Promises: a time is called closed when it is over and every shard has projected what was observed in it; what comes later all
// the same (a projector that was down, a retried dead letter) corrects it; any number of closers may run, and be broken off
// anywhere, because closed figures are maxima. A generation without usage is said and changes nothing.

import { DAY_MS } from "../base/clock.ts";
import { duration } from "../base/config.ts";
import type { UsageStore } from "../store/usage.ts";
import { QUARTER_MS } from "../store/usage.ts";

export const usageSettings = {
  usageEveryMs: duration(
    "RELOG_USAGE_EVERY",
    "1m",
    "how often usage is taken over into the table that outlives the records; `relog usage verify` looks at what is closed",
  ),
};

export interface ClosingPorts {
  readonly store: Pick<UsageStore, "create" | "lacking" | "close" | "closedUntilMs">;
  /** The generation that answers. */
  generation(): Promise<number>;
  /** Everything that streams stored before it is projected in that generation; 0 when that is not known. Milliseconds since the epoch. */
  projectedMs(generation: number): Promise<number>;
  nowMs(): number;
  /** Told why there is no usage to close; undefined when there is. */
  onLacking(why: string | undefined): void;
}

/** Between a record being observed and its message being stored lie an append with its retries and the clocks of two machines. */
const MARGIN_MS = 5 * 60_000;
/** What came late is looked for this far back each time, ... */
const RECENT_MS = 2 * 3_600_000;
/** ... and this far from time to time. */
const FAR_MS = 8 * DAY_MS;
const FAR_EVERY_MS = 3_600_000;

/** What one closing did. */
export interface Closed {
  /** Rows of the table that were written. */
  readonly rows: number;
  readonly untilMs: number;
}

/** @returns closes what can be closed, with `whole` however late it came; undefined when there is nothing to close from */
export function usageCloser(ports: ClosingPorts): (whole?: boolean) => Promise<Closed | undefined> {
  const { store } = ports;
  let lookedFarMs = Number.NEGATIVE_INFINITY;
  return async (whole = false) => {
    const generation = await ports.generation();
    const why = await store.lacking(generation);
    ports.onLacking(why);
    if (why !== undefined) return undefined;
    await store.create();
    const before = await store.closedUntilMs();
    const nowMs = ports.nowMs();
    const projectedMs = Math.min(nowMs, await ports.projectedMs(generation));
    const untilMs = Math.max(before, Math.floor((projectedMs - MARGIN_MS) / QUARTER_MS) * QUARTER_MS);
    const far = nowMs - lookedFarMs >= FAR_EVERY_MS;
    // Nobody closed for long, or ever: from where it was left.
    const sinceMs = whole ? 0 : Math.max(0, Math.min(before, nowMs - (far ? FAR_MS : RECENT_MS)) - QUARTER_MS);
    const rows = await store.close(generation, sinceMs, untilMs);
    if (far || whole) lookedFarMs = nowMs;
    return { rows, untilMs };
  };
}

// Refusals that are held back: a caller that asks again as soon as it is answered asks less often, and costs others less.

import { Bound, sleep } from "../base/loop.ts";

/** Answers that wait at once in a process: each keeps a connection and its statement, 160 KB at most. */
const REFUSALS_HELD_MAX = 250;

/** Waits before a refusal is answered; not at all when `heldMax` of them wait already, or when the caller leaves. */
export type HoldBack = (signal: AbortSignal) => Promise<void>;

/** @param delayMs of each; 0 is none */
export function holdBack(delayMs: number, heldMax = REFUSALS_HELD_MAX): HoldBack {
  const held = new Bound(heldMax);
  return async (signal) => {
    if (delayMs === 0 || !held.tryTake(1)) return;
    try {
      await sleep(delayMs, signal);
    } finally {
      held.give(1);
    }
  };
}

// A site as the settler sees it: the inserts of one generation, each with its fence in the engine's own time.

import type { Clock } from "../base/clock.ts";
import { sleep } from "../base/loop.ts";
import type { Classes } from "../event/retention.ts";
import { FOR_EVER } from "../event/retention.ts";
import type { SitePort } from "./settle.ts";

/** The signatures of lib/store/insert.ts with a ClickHouse bound to them. */
export interface StorePorts {
  insert(request: {
    database: string;
    token: string;
    queryId: string;
    frames: readonly Uint8Array[];
    records: number;
    fenceMs: number;
    classes: Classes;
    signal?: AbortSignal;
  }): ReturnType<SitePort["insert"]>;
  presence(request: { database: string } & Parameters<SitePort["presence"]>[0]): ReturnType<SitePort["presence"]>;
  kill(token: string): Promise<void>;
  /** The engine's clock, milliseconds since the epoch. */
  timeMs(): Promise<number>;
}

/** Kept between the fence and the end of the lease, so that an insert is known to the engine before anyone else may look for it. */
const FENCE_MARGIN_MS = 1_000;
const CLOCK_FRESH_MS = 30_000;
/** An insert that has not begun after this long is refused; so settling after a lost answer need not wait longer. */
const ARRIVAL_MAX_MS = 5_000;

/** A site for one plan: monotonic milliseconds until which this process owns the shard, and the classes that the plan has fixed. */
export type SiteFor = (deadline: () => number, classes?: Classes) => SitePort;

/** The tables of a database, for one plan after the other. */
export function siteOf(store: StorePorts, database: string, clock: Clock): SiteFor {
  /** The engine's time at a moment of our monotonic clock, never ahead of the truth. */
  let reference: { readonly engineMs: number; readonly atMs: number } | undefined;
  /** The latest fence, in the engine's time, of inserts whose answer was lost: until then one may still arrive. 0 is none. */
  let unansweredUntilMs = 0;

  async function fenceAt(deadline: number): Promise<number> {
    if (reference === undefined || clock.monotonicMs() - reference.atMs > CLOCK_FRESH_MS) {
      const engineMs = await store.timeMs();
      reference = { engineMs, atMs: clock.monotonicMs() };
    }
    const end = Math.min(deadline - FENCE_MARGIN_MS, clock.monotonicMs() + ARRIVAL_MAX_MS);
    return reference.engineMs + (end - reference.atMs);
  }

  return (deadline, classes = FOR_EVER) => ({
    async insert({ token, attempt, frames, records, signal }) {
      let fenceMs: number;
      try {
        fenceMs = await fenceAt(deadline());
      } catch (error) {
        return { kind: "busy", code: undefined, message: (error as Error).message };
      }
      if (clock.monotonicMs() > deadline() - FENCE_MARGIN_MS)
        return { kind: "fenced", code: undefined, message: "the lease is about to end" };
      const request = { database, token, queryId: `${token}/${attempt}`, frames, records, fenceMs, classes };
      const unansweredBeforeMs = unansweredUntilMs;
      unansweredUntilMs = Math.max(unansweredUntilMs, fenceMs);
      const outcome = await store.insert(signal === undefined ? request : { ...request, signal });
      // An answer of the engine, good or bad, says that this insert has begun and ended.
      if (outcome.kind === "stored" || outcome.code !== undefined) unansweredUntilMs = unansweredBeforeMs;
      // The engine may have come back with another clock.
      if (outcome.kind !== "stored") reference = undefined;
      return outcome;
    },
    presence: (request) => store.presence({ database, ...request }),
    kill: (token) => store.kill(token),
    async quiet(signal) {
      if (unansweredUntilMs === 0) return false;
      for (;;) {
        const leftMs = unansweredUntilMs - (await store.timeMs());
        if (leftMs < 0) break;
        await sleep(Math.min(leftMs + 1, ARRIVAL_MAX_MS), signal);
        signal.throwIfAborted();
      }
      unansweredUntilMs = 0;
      return true;
    },
  });
}

// When a time counts as closed, and how far back it is looked, by a clock of our own.

import { expect, it } from "vitest";
import type { ClosingPorts } from "./closing.ts";
import { usageCloser } from "./closing.ts";

const T0 = Date.parse("2026-03-02T10:00:00Z");
const MINUTE = 60_000;

function lab() {
  const state = { nowMs: T0, projectedMs: T0, closedMs: 0, lacking: undefined as string | undefined, said: [] as (string | undefined)[] };
  const calls: [generation: number, since: string, until: string][] = [];
  const iso = (ms: number): string => new Date(ms).toISOString().slice(0, 16);
  const ports: ClosingPorts = {
    generation: async () => 4,
    projectedMs: async () => state.projectedMs,
    nowMs: () => state.nowMs,
    onLacking: (why) => void state.said.push(why),
    store: {
      create: async () => undefined,
      lacking: async () => state.lacking,
      closedUntilMs: async () => state.closedMs,
      close: async (generation, sinceMs, untilMs) => {
        calls.push([generation, iso(sinceMs), iso(untilMs)]);
        state.closedMs = untilMs;
        return 1;
      },
    },
  };
  return { state, calls, close: usageCloser(ports) };
}

it("closes the quarters that are over and projected, and never opens one again", async () => {
  const { state, calls, close } = lab();
  const untilOf = async (nowMs: number, projectedMs: number): Promise<string> => {
    [state.nowMs, state.projectedMs] = [nowMs, projectedMs];
    await close();
    return calls.at(-1)![2];
  };
  expect(await untilOf(T0 + 4 * MINUTE, T0 + 4 * MINUTE)).toBe("2026-03-02T09:45");
  expect(await untilOf(T0 + 5 * MINUTE, T0 + 5 * MINUTE)).toBe("2026-03-02T10:00");
  // A projector is behind: time goes on, closing does not.
  expect(await untilOf(T0 + 90 * MINUTE, T0 + 19 * MINUTE)).toBe("2026-03-02T10:00");
  expect(await untilOf(T0 + 90 * MINUTE, T0 + 20 * MINUTE)).toBe("2026-03-02T10:15");
  expect(await untilOf(T0 + 91 * MINUTE, 0)).toBe("2026-03-02T10:15");
  // A message whose time is ahead of this clock closes no future.
  expect(await untilOf(T0 + 91 * MINUTE, T0 + 900 * MINUTE)).toBe("2026-03-02T11:15");
});

it("takes all there is the first time, then the last hours, and every hour the last days", async () => {
  const { state, calls, close } = lab();
  const sinceOf = async (nowMs: number): Promise<string> => {
    [state.nowMs, state.projectedMs] = [nowMs, nowMs];
    expect(await close()).toEqual({ rows: 1, untilMs: state.closedMs });
    return calls.at(-1)![1];
  };
  expect(await sinceOf(T0)).toBe("1970-01-01T00:00");
  expect(await sinceOf(T0 + MINUTE)).toBe("2026-03-02T07:46");
  expect(await sinceOf(T0 + 61 * MINUTE)).toBe("2026-02-22T10:46");
  expect(await sinceOf(T0 + 62 * MINUTE)).toBe("2026-03-02T08:47");
  // Before rows leave the tables everything counts, however late it came.
  await close(true);
  expect(calls.at(-1)![1]).toBe("1970-01-01T00:00");
  // Nobody closed for twenty days.
  expect(await sinceOf(T0 + 20 * 1_440 * MINUTE)).toBe("2026-03-02T10:30");
});

it("a generation without usage is said, and nothing is closed", async () => {
  const { state, calls, close } = lab();
  state.lacking = "generation 4 was made before";
  expect(await close()).toBeUndefined();
  state.lacking = undefined;
  await close();
  expect(state.said).toEqual(["generation 4 was made before", undefined]);
  expect(calls.length).toBe(1);
});

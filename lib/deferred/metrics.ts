// How much waits in DEFERRED, for those who watch.
//
// Promises: one question a scrape and a look every WATCH_MS; a fault of NATS leaves the last numbers; a nearly full stream is a
// warning and never makes a process not ready.

import type { Clock } from "../base/clock.ts";
import type { Health } from "../base/health.ts";
import { every } from "../base/loop.ts";
import type { Telemetry } from "../base/telemetry.ts";
import type { DeferredState } from "../streams/deferred.ts";
import type { ReleaseEvents } from "./release.ts";

const NEARLY_FULL = 0.8;
const WATCH_MS = 10_000;

/** The gauges of DEFERRED. */
export function deferredMetrics(telemetry: Telemetry, clock: Clock, state: () => Promise<DeferredState>): void {
  const gauge = (name: string, help: string, value: (state: DeferredState) => number): void => {
    telemetry.gauge(name, help, [], async (gauge) => {
      // That NATS does not answer is said where it is connected.
      const now = await state().catch(() => undefined);
      if (now !== undefined) gauge.set(value(now));
    });
  };
  gauge("relog_deferred_messages", "messages in DEFERRED", ({ messages }) => messages);
  gauge("relog_deferred_bytes", "bytes of DEFERRED", ({ bytes }) => bytes);
  gauge("relog_deferred_bytes_max", "bytes that DEFERRED may hold; 0 is not bounded", ({ bytesMax }) => bytesMax ?? 0);
  gauge("relog_deferred_oldest_seconds", "age of the oldest message in DEFERRED, else 0", ({ oldestMs }) =>
    oldestMs === undefined ? 0 : (clock.now() - oldestMs) / 1_000,
  );
}

/** Keeps `health` warned while DEFERRED is nearly full, until the signal aborts. @throws what `state` throws */
export async function watchDeferred(health: Health, state: () => Promise<DeferredState>, signal: AbortSignal): Promise<void> {
  await every(WATCH_MS, async () => health.warn("deferred", warningOf(await state())), signal);
}

export function warningOf({ messages, bytes, bytesMax }: Pick<DeferredState, "messages" | "bytes" | "bytesMax">): string | undefined {
  if (bytesMax === undefined || bytes <= NEARLY_FULL * bytesMax) return undefined;
  return `${messages} deferred messages take ${bytes} of ${bytesMax} bytes (RELOG_DEFERRED_BYTES_MAX); when they are full, tenants over their quota get 429`;
}

/** Counts what a releaser does. */
export function releaseEvents({ counter, log }: Telemetry): ReleaseEvents {
  const released = counter("relog_deferred_released_records_total", "deferred records that were stored as their quota had room");
  const expired = counter("relog_deferred_expired_records_total", "deferred records that waited longer than RELOG_DEFER_GRACE");
  return {
    released: (records) => released.inc(records),
    expired({ tenant, records, bytes }) {
      expired.inc(records);
      log.warn({ tenant, records, bytes }, "deferred records waited longer than RELOG_DEFER_GRACE; they left a gap");
    },
  };
}

// The projector's numbers: how far behind, how fast, how often in doubt.

import type { Telemetry } from "../base/telemetry.ts";
import { LATENCY_BUCKETS_S } from "../base/telemetry.ts";

export type ProjectorMetrics = ReturnType<typeof projectorMetrics>;

export interface Lag {
  readonly messages: number;
  /** When the stream stored the oldest of them, milliseconds since the epoch; undefined when none waits. */
  readonly oldestMs: number | undefined;
}

export function projectorMetrics(telemetry: Telemetry, now: () => number) {
  const labels = ["shard"] as const;
  /** Of each owned shard: how to find out what waits. */
  const lags = new Map<string, () => Promise<Lag>>();
  const known = new Map<string, Lag>();
  let asking: Promise<unknown> | undefined;

  /** Asks for every shard at once, for both gauges of one scrape; one that cannot be asked keeps what was known of it. */
  function refresh(): Promise<unknown> {
    asking ??= Promise.all(
      [...lags].map(async ([shard, lag]) => {
        const found = await lag().catch(() => undefined);
        if (found !== undefined && lags.has(shard)) known.set(shard, found);
      }),
    ).finally(() => {
      asking = undefined;
    });
    return asking;
  }

  const blocked = telemetry.gauge("relog_projector_waiting", "1 while a plan waits for ClickHouse", labels);
  const watermark = telemetry.gauge("relog_projector_watermark", "every sequence up to this one is projected or dead-lettered", labels);
  const waiting = telemetry.gauge(
    "relog_projector_lag_messages",
    "messages of the stream that are not projected yet",
    labels,
    async (gauge) => {
      await refresh();
      for (const [shard, { messages }] of known) gauge.set({ shard }, messages);
    },
  );
  const age = telemetry.gauge(
    "relog_projector_lag_seconds",
    "age of the oldest message that is not projected yet, else 0",
    labels,
    async (gauge) => {
      await refresh();
      for (const [shard, { oldestMs }] of known) gauge.set({ shard }, oldestMs === undefined ? 0 : Math.max(0, now() - oldestMs) / 1000);
    },
  );
  return {
    records: telemetry.counter("relog_projector_records_total", "records stored", labels),
    settles: telemetry.counter("relog_projector_settles_total", "inserts whose outcome was in doubt and read back", labels),
    faults: telemetry.counter("relog_projector_faults_total", "times a shard stumbled and began again", labels),
    holes: telemetry.counter(
      "relog_projector_missing_sequences_total",
      "sequences that the stream lost before they were projected",
      labels,
    ),
    dead: telemetry.counter("relog_projector_dead_letters_total", "messages or records parked", ["shard", "reason"]),
    insertSeconds: telemetry.histogram(
      "relog_projector_insert_seconds",
      "a plan, from its first attempt to its end",
      LATENCY_BUCKETS_S,
      labels,
    ),
    planRecords: telemetry.histogram(
      "relog_projector_plan_records",
      "records of a plan",
      [1, 10, 100, 1e3, 1e4, 5e4, 1e5, 2e5, 1e6],
      labels,
    ),
    waiting: (shard: string, yes: boolean) => blocked.set({ shard }, yes ? 1 : 0),
    /** Tells how to find out a shard's lag while it is owned here; `undefined` when it is not any more. */
    lag(shard: string, read: (() => Promise<Lag>) | undefined) {
      if (read !== undefined) {
        lags.set(shard, read);
        return;
      }
      lags.delete(shard);
      known.delete(shard);
      for (const gauge of [waiting, age, watermark, blocked]) gauge.remove({ shard });
    },
    watermark: (shard: string, seq: number) => watermark.set({ shard }, seq),
  };
}

// The projector's numbers: how far behind, how fast, how often in doubt.

import type { Telemetry } from "../base/telemetry.ts";
import { LATENCY_BUCKETS_S } from "../base/telemetry.ts";

export type ProjectorMetrics = ReturnType<typeof projectorMetrics>;

export function projectorMetrics(telemetry: Telemetry, now: () => number) {
  const labels = ["shard"] as const;
  /** Of each owned shard: how to find out how many messages wait. */
  const lags = new Map<string, () => Promise<number>>();
  const lastLag = new Map<string, number>();
  const marks = new Map<string, { seq: number; storedMs: number }>();
  const blocked = telemetry.gauge("relog_projector_waiting", "1 while a plan waits for ClickHouse", labels);
  telemetry.gauge("relog_projector_lag_messages", "messages of the stream that are not projected yet", labels, async (gauge) => {
    for (const [shard, lag] of lags) {
      lastLag.set(shard, Math.max(0, await lag()));
      gauge.set({ shard }, lastLag.get(shard)!);
    }
  });
  telemetry.gauge("relog_projector_lag_seconds", "age of the newest projected message while others wait, else 0", labels, (gauge) => {
    for (const [shard, mark] of marks) gauge.set({ shard }, (lastLag.get(shard) ?? 0) > 0 ? (now() - mark.storedMs) / 1000 : 0);
  });
  telemetry.gauge("relog_projector_watermark", "every sequence up to this one is projected or dead-lettered", labels, (gauge) => {
    for (const [shard, mark] of marks) gauge.set({ shard }, mark.seq);
  });
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
    /** Owns a shard's lag until `undefined` is given. */
    lag(shard: string, read: (() => Promise<number>) | undefined) {
      if (read === undefined) lags.delete(shard);
      else lags.set(shard, read);
    },
    watermark(shard: string, seq: number, storedMs: number) {
      marks.set(shard, { seq, storedMs });
    },
  };
}

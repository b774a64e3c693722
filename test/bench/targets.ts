// What we mean to reach, and whether a run did. Figures by the peer are from the same kind of machine: 2 cores.

import type { Codec } from "./codec.ts";
import type { Floor } from "./floor.ts";
import { sumOf } from "./proc.ts";
import type { Queries } from "./queries.ts";
import type { RebuildBench } from "./rebuild.ts";
import type { Steady } from "./steady.ts";
import type { TenantsBench } from "./tenants.ts";
import type { WholePath } from "./whole-path.ts";

export interface Results {
  readonly wholePath?: readonly WholePath[];
  readonly floor?: readonly Floor[];
  readonly steady?: Steady;
  readonly queries?: Queries;
  readonly codec?: Codec;
  readonly rebuild?: RebuildBench;
  readonly tenants?: TenantsBench;
}

export interface Target {
  readonly name: string;
  readonly measured: number;
  /** At most, or at least, so much. */
  readonly limit: number;
  readonly atLeast: boolean;
  readonly unit: string;
  readonly pass: boolean;
}

/** What a run of the whole path is charged for; the load client is not ours. */
export const OURS = ["gateway", "nats", "projector", "clickhouse"] as const;
const CPU_MAX_S = 11;
const FLOOR_RATIO_MAX = 2.2;
const SEARCHABLE_MIN_PER_S = 120_000;
const MEMORY_MAX_MB = 300;
const WAIT_P99_MAX_MS = 1_500;
const REBUILD_RATE_RATIO_MIN = 1;
const REBUILD_WAIT_RATIO_MAX = 2;
const ADMISSION_MAX_PERCENT = 3;
const NOISE_RATIO_MAX = 1.5;
const TENANTS_LOAD_MAX_MS = 2_000;
const TENANTS_HEAP_MAX_MB = 100;
const MB = 1e6;

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

export function targetsOf(results: Results): Target[] {
  const targets: Target[] = [];
  const check = (name: string, measured: number, limit: number, unit: string, atLeast = false): void => {
    targets.push({ name, measured, limit, atLeast, unit, pass: atLeast ? measured >= limit : measured <= limit });
  };
  const { wholePath, floor, steady, queries, rebuild } = results;
  if (wholePath !== undefined) {
    for (const [when, field] of [
      ["until searchable", "cpuSearchable"],
      ["with merges settled", "cpuSettled"],
    ] as const) {
      const cpu = mean(wholePath.map((run) => sumOf(run[field], OURS)));
      check(`CPU of all processes, ${when}`, cpu, CPU_MAX_S, "s/M");
      if (floor !== undefined)
        check(`CPU over the floor, ${when}`, cpu / mean(floor.map((run) => sumOf(run[field]))), FLOOR_RATIO_MAX, "x");
    }
    check("searchable", mean(wholePath.map((run) => run.searchablePerS)), SEARCHABLE_MIN_PER_S, "records/s", true);
    for (const name of ["gateway", "projector"]) {
      check(`peak memory of the ${name}`, Math.max(...wholePath.map((run) => run.peakBytes[name]!)) / MB, MEMORY_MAX_MB, "MB");
    }
  }
  if (steady !== undefined) check("acknowledged to searchable, p99", steady.searchableP99Ms, WAIT_P99_MAX_MS, "ms");
  if (queries?.comparable)
    for (const { name, serviceS, peerS } of queries.results) check(`query: ${name}`, serviceS * 1_000, peerS * 1_000, "ms");
  if (rebuild !== undefined) {
    const { alone, live, without } = rebuild;
    check("rebuild alone, over the live drain", alone.recordsPerS / live.recordsPerS, REBUILD_RATE_RATIO_MIN, "x", true);
    check("ack p99 with a rebuild, over without", rebuild.with.ackP99Ms / without.ackP99Ms, REBUILD_WAIT_RATIO_MAX, "x");
    const waits = rebuild.with.searchableP99Ms / without.searchableP99Ms;
    check("searchable p99 with a rebuild, over without", waits, REBUILD_WAIT_RATIO_MAX, "x");
  }
  if (results.tenants !== undefined) {
    const { admission, many, without } = results.tenants;
    const percent = (100 * admission.recordUs) / admission.codecRecordUs;
    check(`admission over the codec alone, ${admission.callRecords} records a call`, percent, ADMISSION_MAX_PERCENT, "%");
    check("ack p99 with a noisy tenant, over without", results.tenants.with.ackP99Ms / without.ackP99Ms, NOISE_RATIO_MAX, "x");
    check("query p99 with a noisy tenant, over without", results.tenants.with.queryP99Ms / without.queryP99Ms, NOISE_RATIO_MAX, "x");
    check(`${many.tenants} tenants are read in`, many.loadMs, TENANTS_LOAD_MAX_MS, "ms");
    check(`heap of ${many.tenants} tenants`, many.heapBytes / MB, TENANTS_HEAP_MAX_MB, "MB");
  }
  return targets;
}

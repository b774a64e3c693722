// B: the same rows straight into the same table, from frames made beforehand. Nobody can be cheaper with this table.

import type { InsertOrder, InsertPrepared } from "./inserter-child.ts";
import type { BenchOptions } from "./options.ts";
import type { ByProcess } from "./proc.ts";
import { mapValues, usageOf } from "./proc.ts";
import type { Stage } from "./stage.ts";
import { DATABASE, openStage, since, TENANT } from "./stage.ts";
import { corpusOf } from "./whole-path.ts";
import type { Worker } from "./worker.ts";
import { startWorker } from "./worker.ts";

export interface Floor {
  readonly records: number;
  readonly insertedPerS: number;
  readonly inserts: number;
  /** CPU seconds a million records of ClickHouse and the inserter. */
  readonly cpuSearchable: ByProcess;
  readonly cpuSettled: ByProcess;
  readonly mergesEnded: boolean;
}

export type Inserter = Worker<InsertPrepared, { seconds: number; inserts: number }>;

export async function startInserter(options: BenchOptions, records: number): Promise<Inserter> {
  return await startWorker("inserter", { ...corpusOf(options, records), tenant: TENANT });
}

export function insertOrder(stage: Stage, plans: readonly number[]): InsertOrder {
  const { url, user, password } = stage.clickhouse;
  return { clickhouse: { url, user, password }, database: DATABASE, plans, lanes: stage.shards };
}

/** A stage whose table exists and whose projector has left. */
export async function openTable(options: BenchOptions, env: NodeJS.ProcessEnv, names: readonly "query"[] = []): Promise<Stage> {
  const stage = await openStage(options, env, ["projector", ...names]);
  await stage.services.projector!.child.stop();
  return stage;
}

/** @param plans records of each insert, as the whole path had them */
export async function floor(options: BenchOptions, env: NodeJS.ProcessEnv, plans: readonly number[]): Promise<Floor> {
  const { records } = options;
  await using inserter = await startInserter(options, records);
  await using stage = await openTable(options, env);
  const cpu = (): ByProcess => ({ clickhouse: stage.cpuOf("clickhouse"), inserter: usageOf(inserter.pid).cpuS });
  const perMillion = (used: ByProcess): ByProcess => mapValues(used, (seconds) => (seconds * 1e6) / records);

  const before = cpu();
  const done = await inserter.go(insertOrder(stage, plans));
  const cpuSearchable = perMillion(since(before, cpu()));
  const mergesEnded = await stage.settled();
  const cpuSettled = perMillion(since(before, cpu()));
  await stage.searchable(records, 1_000);
  return { records, insertedPerS: records / done.seconds, inserts: done.inserts, cpuSearchable, cpuSettled, mergesEnded };
}

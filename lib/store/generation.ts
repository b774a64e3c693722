// Whole generations and parts of them: dropping one, removing a tenant's rows, letting expired days go.
//
// Promises: a removal of rows touches only what was inserted before it began (a mutation has a version); expired rows
// leave as whole partitions, which costs nothing and cannot be half done.

import { DAY_MS } from "../base/clock.ts";
import { firstDayKept } from "../event/retention.ts";
import type { ClickHouse } from "./client.ts";
import { generationDatabase } from "./migrate.ts";

const onCluster = (cluster: string): string => (cluster === "" ? "" : `ON CLUSTER '${cluster}'`);
const local = (cluster: string): string => (cluster === "" ? "" : "_local");

/** Drops a generation's tables; nothing happens when there are none. @throws RelogError */
export async function dropDatabase(clickhouse: ClickHouse, generation: number, cluster: string): Promise<void> {
  const statement = `DROP DATABASE IF EXISTS \`${generationDatabase(generation)}\` ${onCluster(cluster)} SYNC`;
  // Someone may be reading a table of gigabytes: the guard against dropping large tables is meant for people.
  await clickhouse.read({ statement, settings: { max_table_size_to_drop: 0, max_partition_size_to_drop: 0 } });
}

/** Begins to remove a tenant's rows from a generation, and returns when that cannot be lost any more. @throws RelogError */
export async function removeRows(clickhouse: ClickHouse, generation: number, tenant: string, cluster: string): Promise<void> {
  const table = `\`${generationDatabase(generation)}\`.logs${local(cluster)}`;
  await clickhouse.read({
    statement: `ALTER TABLE ${table} ${onCluster(cluster)} DELETE WHERE tenant = {tenant:String}`,
    params: { tenant },
    settings: { mutations_sync: 0 },
  });
}

/** Undefined when every removal of a generation has ended, else why the last try of one failed, "" when none has. @throws RelogError */
export async function removalOf(clickhouse: ClickHouse, generation: number): Promise<string | undefined> {
  const answer = await clickhouse.read({
    statement:
      "SELECT count() AS open, any(latest_fail_reason) AS reason FROM system.mutations WHERE database = {database:String} AND NOT is_done AND NOT is_killed FORMAT JSONEachRow",
    params: { database: generationDatabase(generation) },
  });
  const { open, reason } = JSON.parse(answer.toString("utf8")) as { open: number | string; reason: string };
  if (Number(open) === 0) return undefined;
  return reason.slice(0, REASON_CHARS_MAX);
}

const REASON_CHARS_MAX = 500;

/**
 * How many records a generation has of batches that another one knows nothing of, with ids before `batch`; 0 when it has no table.
 * Reads the batch ids of both.
 * @throws RelogError
 */
export async function countBeyond(clickhouse: ClickHouse, generation: number, other: number, batch: string): Promise<number> {
  const [database, otherDatabase] = [generationDatabase(generation), generationDatabase(other)];
  const exists = "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'logs' FORMAT TSV";
  if (Number((await clickhouse.read({ statement: exists, params: { database } })).toString("utf8")) === 0) return 0;
  const known = `SELECT DISTINCT batch FROM \`${otherDatabase}\`.logs WHERE batch < {batch:String}`;
  const statement = `SELECT count() FROM \`${database}\`.logs WHERE batch < {batch:String} AND batch NOT IN (${known}) FORMAT TSV`;
  return Number((await clickhouse.read({ statement, params: { batch }, settings: { max_threads: 2 } })).toString("utf8"));
}

export interface DroppedPartition {
  readonly partition: string;
  readonly rows: number;
}

/** Drops the partitions whose class no longer keeps their day. Returns what was dropped. @throws RelogError */
export async function dropExpired(clickhouse: ClickHouse, generation: number, nowMs: number, cluster: string): Promise<DroppedPartition[]> {
  const database = generationDatabase(generation);
  const table = `logs${local(cluster)}`;
  const answer = await clickhouse.read({
    statement:
      "SELECT partition, partition_id AS id, sum(rows) AS count FROM system.parts WHERE active AND database = {database:String} AND table = {table:String} GROUP BY partition, id ORDER BY partition FORMAT JSONEachRow",
    params: { database, table },
  });
  const dropped: DroppedPartition[] = [];
  for (const line of answer.toString("utf8").split("\n")) {
    if (line === "") continue;
    const { partition, id, count } = JSON.parse(line) as { partition: string; id: string; count: number | string };
    const match = /^\((\d+),'(\d{4}-\d{2}-\d{2})'\)$/.exec(partition);
    // A generation from before there were classes has days alone, and keeps them.
    if (match === null) continue;
    const day = Date.parse(`${match[2]}T00:00:00Z`) / DAY_MS;
    if (day >= firstDayKept(Number(match[1]), nowMs)) continue;
    await clickhouse.read({
      statement: `ALTER TABLE \`${database}\`.${table} ${onCluster(cluster)} DROP PARTITION ID '${id}'`,
      settings: { max_partition_size_to_drop: 0 },
    });
    dropped.push({ partition, rows: Number(count) });
  }
  return dropped;
}

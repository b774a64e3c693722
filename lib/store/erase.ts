// A tenant's rows in every table of a site: finding, counting and removing them.
//
// Promises: the engine says which tables there are, so that none is forgotten which a register does not name any more; what is
// counted is the rows and the counts beside them; a removal that is asked for twice does no harm. The engine keeps parts that a
// removal replaced for some minutes (old_parts_lifetime), out of reach of every query.

import type { ClickHouse } from "./client.ts";
import { saysTableGone } from "./insert.ts";
import { ARCHIVE_DATABASE } from "./isolation.ts";
import { GENERATIONS_MAX } from "./migrate.ts";

/** A table that holds records. */
export interface LogsTable {
  readonly database: string;
  readonly table: string;
}

export interface TenantRows {
  readonly rows: number;
  /** Records in the table's counts. */
  readonly counted: number;
  /** RFC 3339; null when there are no rows. */
  readonly first: string | null;
  readonly last: string | null;
}

const TABLES_MAX = 2 * GENERATIONS_MAX;
const REASON_CHARS_MAX = 500;
/** On a cluster a replica that lags must not say "none". Nothing on one server. */
const SETTINGS = {
  select_sequential_consistency: 1,
  optimize_use_projections: 0,
  optimize_use_implicit_projections: 0,
  optimize_trivial_count_query: 0,
  max_threads: 2,
} as const;

const local = (cluster: string): string => (cluster === "" ? "" : "_local");

/** Every table of records: of generations, those nobody follows any more too, and from the archive. @throws RelogError */
export async function logsTables(clickhouse: ClickHouse): Promise<LogsTable[]> {
  const statement =
    "SELECT database, name AS table FROM system.tables WHERE (match(database, '^relog_g[0-9]+$') AND name = 'logs') " +
    `OR (database = '${ARCHIVE_DATABASE}' AND startsWith(name, 'archive_') AND NOT endsWith(name, '_local')) ORDER BY database, table LIMIT ${TABLES_MAX} FORMAT JSONEachRow`;
  const text = (await clickhouse.read({ statement })).toString("utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as LogsTable);
}

/** What a table holds of a tenant. @throws RelogError */
export async function rowsOfTenant(
  clickhouse: ClickHouse,
  { database, table }: LogsTable,
  tenant: string,
  cluster: string,
): Promise<TenantRows> {
  const time = (which: string): string => `if(count() = 0, '', formatDateTime(${which}(timestamp), '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC'))`;
  const rows = `SELECT count() AS n, ${time("min")} AS first, ${time("max")} AS last FROM \`${database}\`.${table} WHERE tenant = {tenant:String}`;
  const projection = `mergeTreeProjection('${database}', '${table}${local(cluster)}', 'counts')`;
  const from = cluster === "" ? projection : `cluster('${cluster}', ${projection})`;
  const counts = `SELECT countMerge(\`count()\`) AS n FROM ${from} WHERE tenant = {tenant:String}`;
  const ask = async (statement: string): Promise<Record<string, string>> => {
    const answer = await clickhouse.read({ statement: `${statement} FORMAT JSONEachRow`, params: { tenant }, settings: SETTINGS });
    return JSON.parse(answer.toString("utf8")) as Record<string, string>;
  };
  const [there, counted] = [await ask(rows), await ask(counts)];
  return { rows: Number(there.n), counted: Number(counted.n), first: there.first || null, last: there.last || null };
}

/** Begins to remove a tenant's rows; whether that is over says `removalFrom`. A table that is gone holds none. @throws RelogError */
export async function removeTenant(clickhouse: ClickHouse, { database, table }: LogsTable, tenant: string, cluster: string): Promise<void> {
  const where = cluster === "" ? "" : `ON CLUSTER '${cluster}' `;
  const statement = `ALTER TABLE \`${database}\`.${table}${local(cluster)} ${where}DELETE WHERE tenant = {tenant:String}`;
  try {
    await clickhouse.read({ statement, params: { tenant }, settings: { mutations_sync: 0 } });
  } catch (error) {
    if (!saysTableGone(error)) throw error;
  }
}

/** Undefined when every removal from a table has ended, else why the last try of one failed, "" when none has. @throws RelogError */
export async function removalFrom(clickhouse: ClickHouse, { database, table }: LogsTable, cluster: string): Promise<string | undefined> {
  const from = cluster === "" ? "system.mutations" : `clusterAllReplicas('${cluster}', system.mutations)`;
  const answer = await clickhouse.read({
    statement: `SELECT count() AS open, any(latest_fail_reason) AS reason FROM ${from} WHERE database = {database:String} AND table = {table:String} AND NOT is_done AND NOT is_killed FORMAT JSONEachRow`,
    params: { database, table: `${table}${local(cluster)}` },
  });
  const { open, reason } = JSON.parse(answer.toString("utf8")) as { open: number | string; reason: string };
  return Number(open) === 0 ? undefined : reason.slice(0, REASON_CHARS_MAX);
}

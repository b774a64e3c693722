// Usage: records and bytes per tenant, quarter of an hour and service, as the live generation counts them, and closed into a
// table that outlives them.
//
// Promises: a figure of the closed table never becomes smaller (its columns are maxima), whatever leaves the tables of records
// and however often or by how many it is closed; answers are the larger of the closed and the live figure; a tenant's services of
// a quarter are bounded, the rest of them is one row. docs/adr/0020-usage.md.

import type { ClickHouse } from "./client.ts";
import { generationDatabase } from "./migrate.ts";
import { usageFigures } from "./usage-figures.ts";
import type { Granularity, UsageScope } from "./usage-sql.ts";
import { quarterOf, secondsOf, sides, USAGE_BACKGROUND, USAGE_CLOSED_TABLE, USAGE_TABLE } from "./usage-sql.ts";

export const QUARTER_MS = 900_000;

export interface UsageRow {
  readonly fromMs: number;
  readonly toMs: number;
  /** "" when services are not told apart. */
  readonly service: string;
  readonly records: number;
  readonly bytes: number;
}

export interface UsageRequest {
  readonly tenant: string;
  /** The generation to look into besides the closed table; undefined when none can be asked. */
  readonly generation: number | undefined;
  readonly by: Granularity;
  readonly zone: string;
  readonly services: boolean;
  readonly sinceMs: number;
  readonly untilMs: number;
  /** Begins with the whole hour, day or month that holds `sinceMs`. */
  readonly align: boolean;
  readonly rowsMax: number;
}

export interface Window {
  readonly fromMs: number;
  readonly toMs: number;
  readonly records: number;
  readonly bytes: number;
}

/** The day and month of a time zone that hold a moment, and the 24 hours before it. */
export interface Windows {
  readonly day: Window;
  readonly month: Window;
  readonly last: { readonly records: number; readonly bytes: number };
}

/** Usage of a tenant in a quarter of an hour, and the day and month that it is of. */
export interface Quarter {
  readonly quarterMs: number;
  readonly dayMs: number;
  readonly monthMs: number;
  readonly records: number;
  readonly bytes: number;
}

export interface Figures {
  readonly records: number;
  readonly bytes: number;
}

/** What both tables say of a tenant's service in a quarter. */
export interface StoredFigures {
  readonly tenant: string;
  readonly quarterMs: number;
  readonly service: string;
  readonly closed: Figures;
  readonly live: Figures;
}

export interface UsageStore {
  /** Makes the closed table when it is not there: once, and again when it was found to be gone. @throws RelogError, as all of them */
  create(): Promise<void>;
  /** Why a generation has no usage; undefined when it has. */
  lacking(generation: number): Promise<string | undefined>;
  /** Takes over what a generation counts of the quarters from `sinceMs` on; those that end by `closedUntilMs` are closed. @returns rows written */
  close(generation: number, sinceMs: number, closedUntilMs: number): Promise<number>;
  /** Up to when usage is closed, milliseconds since the epoch; 0 before the first time. */
  closedUntilMs(): Promise<number>;
  rows(request: UsageRequest): Promise<UsageRow[]>;
  windows(tenant: string, generation: number | undefined, zone: string, nowMs: number): Promise<Windows>;
  /** The quarters of a tenant, from the beginning of the month that holds `sinceMs`. */
  quarters(tenant: string, generation: number | undefined, zone: string, sinceMs: number, untilMs: number): Promise<Quarter[]>;
  /** Both tables' figures, of one tenant or of all. */
  stored(generation: number, tenant: string | undefined, sinceMs: number, untilMs: number): Promise<StoredFigures[]>;
}

/** The usage of one ClickHouse. */
export function usageStore(clickhouse: ClickHouse, cluster = ""): UsageStore {
  let created = false;
  const { ask, ...figures } = usageFigures(clickhouse, () => {
    created = false;
  });
  return {
    ...figures,
    async create() {
      if (!created) await createTables(clickhouse, cluster);
      created = true;
    },

    async lacking(generation) {
      const statement =
        "SELECT countIf(name = 'batch') AS made, countIf(name = 'bytes') AS counted FROM system.columns WHERE database = {database:String} AND table = 'logs'";
      const [found] = await ask<{ made: number; counted: number }>(statement, { database: generationDatabase(generation) });
      if (found!.made === 0) return `generation ${generation} has no tables yet`;
      if (found!.counted === 0)
        return `generation ${generation} was made before usage was counted: \`relog rebuild\` makes one that counts it`;
      return undefined;
    },

    async close(generation, sinceMs, closedUntilMs) {
      const until = secondsOf(closedUntilMs);
      const scope: UsageScope = { generation, tenant: false, since: quarterOf("since"), until: "toDateTime(4294967295, 'UTC')" };
      const over = "toUnixTimestamp(quarter) + 900 <= {until:UInt32}";
      const statement =
        `INSERT INTO ${USAGE_TABLE} (tenant, quarter, service, records, bytes, closed) ` +
        `SELECT tenant, quarter, service, live_n, live_size, if(${over}, now64(3), toDateTime64(0, 3, 'UTC')) FROM (${sides(scope)}) ` +
        `WHERE live_n > closed_n OR live_size > closed_size OR (${over} AND toUnixTimestamp64Milli(taken) = 0)`;
      const settings = { ...USAGE_BACKGROUND, async_insert: 0, insert_deduplicate: 0, wait_end_of_query: 1 };
      const answer = await clickhouse.request({ statement, params: { since: secondsOf(sinceMs), until }, settings });
      answer.stream.resume();
      // The rows first: whoever reads that a time is closed finds them.
      await clickhouse.read({
        statement: `INSERT INTO ${USAGE_CLOSED_TABLE} (one, until) SELECT 0, toDateTime({until:UInt32}, 'UTC')`,
        params: { until },
        settings: { async_insert: 0 },
      });
      return Number(answer.summary?.written_rows ?? 0);
    },

    async closedUntilMs() {
      const [found] = await ask<{ until: number }>(`SELECT toUnixTimestamp(max(until)) AS until FROM ${USAGE_CLOSED_TABLE}`, {});
      return found!.until * 1_000;
    },
  };
}

async function createTables(clickhouse: ClickHouse, cluster: string): Promise<void> {
  const where = cluster === "" ? "" : `ON CLUSTER '${cluster}'`;
  // Not sharded: every server of a cluster has all of it.
  const engine = (name: string): string =>
    cluster === "" ? "AggregatingMergeTree" : `ReplicatedAggregatingMergeTree('/clickhouse/tables/relog/${name}', '{shard}-{replica}')`;
  await clickhouse.read({ statement: `CREATE DATABASE IF NOT EXISTS relog ${where}` });
  await clickhouse.read({
    statement:
      `CREATE TABLE IF NOT EXISTS ${USAGE_TABLE} ${where} (tenant LowCardinality(String), quarter DateTime('UTC'), service LowCardinality(String), ` +
      "records SimpleAggregateFunction(max, UInt64), bytes SimpleAggregateFunction(max, UInt64), closed SimpleAggregateFunction(max, DateTime64(3, 'UTC'))) " +
      `ENGINE = ${engine("usage")} PARTITION BY toYYYYMM(quarter) ORDER BY (tenant, quarter, service) SETTINGS fsync_after_insert = 1`,
  });
  await clickhouse.read({
    statement:
      `CREATE TABLE IF NOT EXISTS ${USAGE_CLOSED_TABLE} ${where} (one UInt8, until SimpleAggregateFunction(max, DateTime('UTC'))) ` +
      `ENGINE = ${engine("usage_closed")} ORDER BY one SETTINGS fsync_after_insert = 1`,
  });
}

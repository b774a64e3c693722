// Usage: records and bytes per tenant, quarter of an hour and service, as the live generation counts them, and closed into a
// table that outlives them.
//
// Promises: a figure of the closed table never becomes smaller (its columns are maxima), whatever leaves the tables of records
// and however often or by how many it is closed; answers are the larger of the closed and the live figure; a tenant's services of
// a quarter are bounded, the rest of them is one row. docs/adr/0020-usage.md.

import type { ClickHouse, SettingValue } from "./client.ts";
import { generationDatabase } from "./migrate.ts";

/** Services of a tenant that a quarter has rows of; those that come later are counted together. */
const SERVICES_MAX = 1_000;
/** What the rest is called. */
export const OTHER_SERVICES = "(other)";
export const QUARTER_MS = 900_000;

const TABLE = "relog.usage";
const UNTIL = "relog.usage_closed";
const LIVE_QUARTER = "toStartOfFifteenMinutes(observed_timestamp)";
const READ_BYTES_MAX = 256 * 2 ** 20;

const SETTINGS: Readonly<Record<string, SettingValue>> = {
  max_threads: 2,
  default_format: "JSONEachRow",
  output_format_json_quote_64bit_integers: 0,
  // On a cluster a replica that lags must not say less. Nothing on one server.
  select_sequential_consistency: 1,
};
/** Nobody waits for it. */
const BACKGROUND = { ...SETTINGS, os_thread_priority: 10 } as const;

export type Granularity = "hour" | "day" | "month";

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
  /** Makes the closed table when it is not there. @throws RelogError, as all of them */
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

interface Scope {
  readonly generation: number | undefined;
  readonly tenant: boolean;
  /** SQL of the first quarter and the one behind the last. */
  readonly since: string;
  readonly until: string;
}

/** What is closed: tenant, quarter, service, n, size, taken. */
function closedPart({ tenant, since, until }: Scope): string {
  const where = `quarter >= ${since} AND quarter < ${until}${tenant ? " AND tenant = {tenant:String}" : ""}`;
  return (
    `SELECT tenant, quarter, service, max(records) AS n, max(bytes) AS size, max(closed) AS taken ` +
    `FROM ${TABLE} WHERE ${where} GROUP BY tenant, quarter, service`
  );
}

/**
 * What a generation counts, in the same shape. The services that are closed by name stay so, others follow by their records, and
 * what is beyond the bound is one row: a service that was counted by name is never counted with the rest, too.
 */
function livePart(scope: Scope, generation: number): string {
  const { tenant, since, until } = scope;
  const where = `${LIVE_QUARTER} >= ${since} AND ${LIVE_QUARTER} < ${until}${tenant ? " AND tenant = {tenant:String}" : ""}`;
  const counted =
    `SELECT tenant, ${LIVE_QUARTER} AS quarter, service, count() AS n, sum(bytes) AS size ` +
    `FROM \`${generationDatabase(generation)}\`.logs WHERE ${where} GROUP BY tenant, quarter, service`;
  const known = `(tenant, quarter, service) IN (SELECT tenant, quarter, service FROM (${closedPart(scope)}))`;
  const ranked =
    `SELECT tenant, quarter, service, n, size, row_number() OVER (PARTITION BY tenant, quarter ORDER BY known DESC, n DESC, service) AS rank ` +
    `FROM (SELECT *, ${known} AS known FROM (${counted}))`;
  return (
    `SELECT tenant, quarter, named AS service, sum(n) AS n, sum(size) AS size, toDateTime64(0, 3, 'UTC') AS taken ` +
    `FROM (SELECT tenant, quarter, n, size, if(rank <= ${SERVICES_MAX}, toString(service), '${OTHER_SERVICES}') AS named FROM (${ranked})) ` +
    "GROUP BY tenant, quarter, named"
  );
}

/** Both, side by side: tenant, quarter, service, live_n, live_size, closed_n, closed_size, taken. */
function sides(scope: Scope): string {
  const columns = "toString(tenant) AS tenant, quarter, toString(service) AS service, n, size, taken";
  const parts = [`SELECT ${columns}, 0 AS live FROM (${closedPart(scope)})`];
  if (scope.generation !== undefined) parts.push(`SELECT ${columns}, 1 AS live FROM (${livePart(scope, scope.generation)})`);
  return (
    "SELECT tenant, quarter, service, maxIf(n, live = 1) AS live_n, maxIf(size, live = 1) AS live_size, maxIf(n, live = 0) AS closed_n, " +
    `maxIf(size, live = 0) AS closed_size, max(taken) AS taken FROM (${parts.join(" UNION ALL ")}) GROUP BY tenant, quarter, service`
  );
}

/** The larger of both: tenant, quarter, service, n, size. */
const merged = (scope: Scope): string =>
  `SELECT tenant, quarter, service, greatest(live_n, closed_n) AS n, greatest(live_size, closed_size) AS size FROM (${sides(scope)})`;

/** SQL of the beginning and the end of the hour, day or month of `zone` that holds a time. */
function bucketOf(by: Granularity, time: string): { readonly from: string; readonly to: string } {
  switch (by) {
    case "hour": {
      const from = `toStartOfHour(${time}, {zone:String})`;
      return { from, to: `addHours(${from}, 1)` };
    }
    case "day": {
      const from = `toStartOfDay(${time}, {zone:String})`;
      return { from, to: `addDays(${from}, 1)` };
    }
    case "month": {
      const from = `toDateTime(toStartOfMonth(${time}, {zone:String}), {zone:String})`;
      return { from, to: `addMonths(${from}, 1)` };
    }
    default:
      return by satisfies never;
  }
}

const secondsOf = (ms: number): number => Math.floor(ms / 1_000);
const quarterOf = (name: string): string => `toStartOfFifteenMinutes(toDateTime({${name}:UInt32}, 'UTC'))`;
/** A range of time is of the quarters that begin in it, and the one that holds its beginning. */
const RANGE = { since: quarterOf("since"), until: "toDateTime({until:UInt32}, 'UTC')" } as const;

/** The usage of one ClickHouse. */
export function usageStore(clickhouse: ClickHouse, cluster = ""): UsageStore {
  async function ask<T>(statement: string, params: Readonly<Record<string, unknown>>, settings = SETTINGS): Promise<T[]> {
    const bytes = await clickhouse.read({ statement, params, settings }, READ_BYTES_MAX);
    const lines = bytes.toString("utf8").split("\n");
    return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as T);
  }

  return {
    async create() {
      const where = cluster === "" ? "" : `ON CLUSTER '${cluster}'`;
      // Not sharded: every server of a cluster has all of it.
      const engine = (name: string): string =>
        cluster === "" ? "AggregatingMergeTree" : `ReplicatedAggregatingMergeTree('/clickhouse/tables/relog/${name}', '{shard}-{replica}')`;
      await clickhouse.read({ statement: `CREATE DATABASE IF NOT EXISTS relog ${where}` });
      await clickhouse.read({
        statement:
          `CREATE TABLE IF NOT EXISTS ${TABLE} ${where} (tenant LowCardinality(String), quarter DateTime('UTC'), service LowCardinality(String), ` +
          "records SimpleAggregateFunction(max, UInt64), bytes SimpleAggregateFunction(max, UInt64), closed SimpleAggregateFunction(max, DateTime64(3, 'UTC'))) " +
          `ENGINE = ${engine("usage")} PARTITION BY toYYYYMM(quarter) ORDER BY (tenant, quarter, service) SETTINGS fsync_after_insert = 1`,
      });
      await clickhouse.read({
        statement:
          `CREATE TABLE IF NOT EXISTS ${UNTIL} ${where} (one UInt8, until SimpleAggregateFunction(max, DateTime('UTC'))) ` +
          `ENGINE = ${engine("usage_closed")} ORDER BY one SETTINGS fsync_after_insert = 1`,
      });
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
      const scope: Scope = { generation, tenant: false, since: quarterOf("since"), until: "toDateTime(4294967295, 'UTC')" };
      const over = "toUnixTimestamp(quarter) + 900 <= {until:UInt32}";
      const statement =
        `INSERT INTO ${TABLE} (tenant, quarter, service, records, bytes, closed) ` +
        `SELECT tenant, quarter, service, live_n, live_size, if(${over}, now64(3), toDateTime64(0, 3, 'UTC')) FROM (${sides(scope)}) ` +
        `WHERE live_n > closed_n OR live_size > closed_size OR (${over} AND toUnixTimestamp64Milli(taken) = 0)`;
      const settings = { ...BACKGROUND, async_insert: 0, insert_deduplicate: 0, wait_end_of_query: 1 };
      const answer = await clickhouse.request({ statement, params: { since: secondsOf(sinceMs), until }, settings });
      answer.stream.resume();
      // The rows first: whoever reads that a time is closed finds them.
      await clickhouse.read({
        statement: `INSERT INTO ${UNTIL} (one, until) SELECT 0, toDateTime({until:UInt32}, 'UTC')`,
        params: { until },
        settings: { async_insert: 0 },
      });
      return Number(answer.summary?.written_rows ?? 0);
    },

    async closedUntilMs() {
      const [found] = await ask<{ until: number }>(`SELECT toUnixTimestamp(max(until)) AS until FROM ${UNTIL}`, {});
      return found!.until * 1_000;
    },

    async rows({ tenant, generation, by, zone, services, sinceMs, untilMs, align, rowsMax }) {
      const since = align ? `toTimeZone(${bucketOf(by, RANGE.since).from}, 'UTC')` : RANGE.since;
      const { from, to } = bucketOf(by, "quarter");
      const service = services ? "service" : "''";
      const statement =
        `SELECT toUnixTimestamp(${from}) AS begin, toUnixTimestamp(${to}) AS end, ${service} AS name, sum(n) AS records, sum(size) AS bytes ` +
        `FROM (${merged({ generation, tenant: true, since, until: RANGE.until })}) GROUP BY begin, end, name ORDER BY begin, name LIMIT ${rowsMax}`;
      const params = { tenant, zone, since: secondsOf(sinceMs), until: secondsOf(untilMs) };
      const found = await ask<{ begin: number; end: number; name: string; records: number; bytes: number }>(statement, params);
      return found.map(({ begin, end, name, ...figures }) => ({ fromMs: begin * 1_000, toMs: end * 1_000, service: name, ...figures }));
    },

    async windows(tenant, generation, zone, nowMs) {
      const now = "toDateTime({now:UInt32}, 'UTC')";
      const [day, month] = [bucketOf("day", now), bucketOf("month", now)];
      const last = `toStartOfFifteenMinutes(subtractHours(${now}, 24))`;
      const scope: Scope = {
        generation,
        tenant: true,
        since: `least(toTimeZone(${month.from}, 'UTC'), ${last})`,
        until: `addDays(${now}, 1)`,
      };
      const sums = (name: string, from: string): string =>
        `sumIf(n, quarter >= ${from}) AS ${name}_records, sumIf(size, quarter >= ${from}) AS ${name}_bytes`;
      const ends = [day.from, day.to, month.from, month.to].map((time, i) => `toUnixTimestamp(${time}) AS t${i}`).join(", ");
      const statement = `SELECT ${ends}, ${sums("day", day.from)}, ${sums("month", month.from)}, ${sums("last", last)} FROM (${merged(scope)})`;
      const [found] = await ask<Record<string, number>>(statement, { tenant, zone, now: secondsOf(nowMs) });
      const of = (name: string): Figures => ({ records: found![`${name}_records`]!, bytes: found![`${name}_bytes`]! });
      return {
        day: { fromMs: found!.t0! * 1_000, toMs: found!.t1! * 1_000, ...of("day") },
        month: { fromMs: found!.t2! * 1_000, toMs: found!.t3! * 1_000, ...of("month") },
        last: of("last"),
      };
    },

    async quarters(tenant, generation, zone, sinceMs, untilMs) {
      const since = `toTimeZone(${bucketOf("month", RANGE.since).from}, 'UTC')`;
      const [day, month] = [bucketOf("day", "quarter").from, bucketOf("month", "quarter").from];
      const statement =
        `SELECT toUnixTimestamp(quarter) AS q, toUnixTimestamp(${day}) AS d, toUnixTimestamp(${month}) AS m, sum(n) AS records, sum(size) AS bytes ` +
        `FROM (${merged({ generation, tenant: true, since, until: RANGE.until })}) GROUP BY quarter ORDER BY quarter`;
      const params = { tenant, zone, since: secondsOf(sinceMs), until: secondsOf(untilMs) };
      const found = await ask<{ q: number; d: number; m: number; records: number; bytes: number }>(statement, params);
      return found.map(({ q, d, m, ...figures }) => ({ quarterMs: q * 1_000, dayMs: d * 1_000, monthMs: m * 1_000, ...figures }));
    },

    async stored(generation, tenant, sinceMs, untilMs) {
      const statement = `SELECT tenant, toUnixTimestamp(quarter) AS q, service, live_n, live_size, closed_n, closed_size FROM (${sides({ generation, tenant: tenant !== undefined, ...RANGE })})`;
      const params = { since: secondsOf(sinceMs), until: secondsOf(untilMs), ...(tenant === undefined ? {} : { tenant }) };
      type Found = Readonly<
        Record<"q" | "live_n" | "live_size" | "closed_n" | "closed_size", number> & Record<"tenant" | "service", string>
      >;
      return (await ask<Found>(statement, params, BACKGROUND)).map((row) => ({
        tenant: row.tenant,
        quarterMs: row.q * 1_000,
        service: row.service,
        closed: { records: row.closed_n, bytes: row.closed_size },
        live: { records: row.live_n, bytes: row.live_size },
      }));
    },
  };
}

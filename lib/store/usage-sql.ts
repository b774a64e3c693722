// The SQL of usage: what is closed, what a generation counts, both of them together.

import type { SettingValue } from "./client.ts";
import { generationDatabase } from "./migrate.ts";

/** Services of a tenant that a quarter has rows of; those that come later are counted together. */
const SERVICES_MAX = 1_000;
/** What the rest is called. */
export const OTHER_SERVICES = "(other)";

/** The closed figures, and up to when usage is closed. */
export const USAGE_TABLE = "relog.usage";
export const USAGE_CLOSED_TABLE = "relog.usage_closed";
const LIVE_QUARTER = "toStartOfFifteenMinutes(observed_timestamp)";

export const USAGE_SETTINGS: Readonly<Record<string, SettingValue>> = {
  max_threads: 2,
  default_format: "JSONEachRow",
  output_format_json_quote_64bit_integers: 0,
  // On a cluster a replica that lags must not say less. Nothing on one server.
  select_sequential_consistency: 1,
};
/** Nobody waits for it. */
export const USAGE_BACKGROUND = { ...USAGE_SETTINGS, os_thread_priority: 10 } as const;

export type Granularity = "hour" | "day" | "month";

export interface UsageScope {
  readonly generation: number | undefined;
  readonly tenant: boolean;
  /** SQL of the first quarter and the one behind the last. */
  readonly since: string;
  readonly until: string;
}

/** What is closed: tenant, quarter, service, n, size, taken. */
function closedPart({ tenant, since, until }: UsageScope): string {
  const where = `quarter >= ${since} AND quarter < ${until}${tenant ? " AND tenant = {tenant:String}" : ""}`;
  return (
    `SELECT tenant, quarter, service, max(records) AS n, max(bytes) AS size, max(closed) AS taken ` +
    `FROM ${USAGE_TABLE} WHERE ${where} GROUP BY tenant, quarter, service`
  );
}

/**
 * What a generation counts, in the same shape. The services that are closed by name stay so, others follow by their records, and
 * what is beyond the bound is one row: a service that was counted by name is never counted with the rest, too.
 */
function livePart(scope: UsageScope, generation: number): string {
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
export function sides(scope: UsageScope): string {
  const columns = "toString(tenant) AS tenant, quarter, toString(service) AS service, n, size, taken";
  const parts = [`SELECT ${columns}, 0 AS live FROM (${closedPart(scope)})`];
  if (scope.generation !== undefined) parts.push(`SELECT ${columns}, 1 AS live FROM (${livePart(scope, scope.generation)})`);
  return (
    "SELECT tenant, quarter, service, maxIf(n, live = 1) AS live_n, maxIf(size, live = 1) AS live_size, maxIf(n, live = 0) AS closed_n, " +
    `maxIf(size, live = 0) AS closed_size, max(taken) AS taken FROM (${parts.join(" UNION ALL ")}) GROUP BY tenant, quarter, service`
  );
}

/** The larger of both: tenant, quarter, service, n, size. */
export const merged = (scope: UsageScope): string =>
  `SELECT tenant, quarter, service, greatest(live_n, closed_n) AS n, greatest(live_size, closed_size) AS size FROM (${sides(scope)})`;

/** SQL of the beginning and the end of the hour, day or month of `zone` that holds a time. */
export function bucketOf(by: Granularity, time: string): { readonly from: string; readonly to: string } {
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

export const secondsOf = (ms: number): number => Math.floor(ms / 1_000);
export const quarterOf = (name: string): string => `toStartOfFifteenMinutes(toDateTime({${name}:UInt32}, 'UTC'))`;
/** A range of time is of the quarters that begin in it, and the one that holds its beginning. */
export const RANGE = { since: quarterOf("since"), until: "toDateTime({until:UInt32}, 'UTC')" } as const;

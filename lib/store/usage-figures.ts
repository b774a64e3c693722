// Reading usage: by hour, day and month of a time zone, for quotas, and for comparing.

import type { ClickHouse } from "./client.ts";
import { saysTableGone } from "./insert.ts";
import type { Figures, UsageStore } from "./usage.ts";
import type { UsageScope } from "./usage-sql.ts";
import { bucketOf, merged, RANGE, secondsOf, sides, USAGE_BACKGROUND, USAGE_SETTINGS } from "./usage-sql.ts";

const READ_BYTES_MAX = 256 * 2 ** 20;

export type Ask = <T>(statement: string, params: Readonly<Record<string, unknown>>, settings?: typeof USAGE_SETTINGS) => Promise<T[]>;

/** The reading half of a UsageStore, and how it asks. @param onGone told when a table is not there */
export function usageFigures(
  clickhouse: ClickHouse,
  onGone: () => void,
): Pick<UsageStore, "rows" | "windows" | "quarters" | "stored"> & { readonly ask: Ask } {
  const ask: Ask = async <T>(statement: string, params: Readonly<Record<string, unknown>>, settings = USAGE_SETTINGS) => {
    const bytes = await clickhouse.read({ statement, params, settings }, READ_BYTES_MAX).catch((error: unknown) => {
      if (saysTableGone(error)) onGone();
      throw error;
    });
    const lines = bytes.toString("utf8").split("\n");
    return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as T);
  };
  return {
    ask,
    windows: (...args) => windowsOf(ask, ...args),

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
      return (await ask<Found>(statement, params, USAGE_BACKGROUND)).map((row) => ({
        tenant: row.tenant,
        quarterMs: row.q * 1_000,
        service: row.service,
        closed: { records: row.closed_n, bytes: row.closed_size },
        live: { records: row.live_n, bytes: row.live_size },
      }));
    },
  };
}

async function windowsOf(
  ask: Ask,
  ...[tenant, generation, zone, nowMs]: Parameters<UsageStore["windows"]>
): ReturnType<UsageStore["windows"]> {
  const now = "toDateTime({now:UInt32}, 'UTC')";
  const [day, month] = [bucketOf("day", now), bucketOf("month", now)];
  const last = `toStartOfFifteenMinutes(subtractHours(${now}, 24))`;
  const scope: UsageScope = {
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
}

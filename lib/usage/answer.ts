// What is answered about a tenant's usage, over HTTP and by the command.
//
// Promises: figures are the larger of what is closed and what the live generation counts; while ClickHouse cannot be asked, what
// is left of quotas is answered from the windows that the process keeps itself, and the answer says that it is not complete;
// answers are bounded in rows.

import { DAY_MS } from "../base/clock.ts";
import { messageOf, RelogError } from "../base/errors.ts";
import type { UsageStore, Window, Windows } from "../store/usage.ts";
import { QUARTER_MS } from "../store/usage.ts";
import type { UsageAnswer, UsageQuery, WhatIfAnswer, WhatIfQuery } from "./endpoints.ts";
import type { QuotaAmounts } from "./quotas.ts";
import { quotaStates } from "./quotas.ts";
import { REPLAYED, whatIf } from "./what-if.ts";

/** Usage of the windows that hold now, in the tenant's own time zone. */
export interface CurrentWindows {
  readonly day: Window;
  readonly month: Window;
}

export interface UsagePorts {
  readonly store: Pick<UsageStore, "create" | "lacking" | "closedUntilMs" | "rows" | "windows" | "quarters">;
  /** The generation that answers. @throws RelogError not_ready */
  generation(): number;
  /** What is kept of a tenant; undefined when there is none of the name. */
  account(tenant: string): { readonly quotas: QuotaAmounts; readonly zone: string } | undefined;
  /** The windows as this process counts them; undefined when it does not. */
  windows(tenant: string): Promise<CurrentWindows | undefined> | CurrentWindows | undefined;
  nowMs(): number;
}

const ROWS_MAX = 10_000;
/** How far back an answer goes that is not asked for a time. */
const BACK_MS = { hour: DAY_MS, day: 31 * DAY_MS, month: 365 * DAY_MS } as const;

const iso = (ms: number): string => new Date(ms).toISOString();

/** What can be asked now: the closed table, and the generation that answers. */
interface Asked {
  readonly generation: number | undefined;
  readonly note: string | null;
}

async function asked({ store, generation }: UsagePorts): Promise<Asked> {
  await store.create();
  const live = generation();
  const why = await store.lacking(live);
  return why === undefined ? { generation: live, note: null } : { generation: undefined, note: `only what is closed: ${why}` };
}

interface Seen extends Asked {
  readonly closedUntilMs: number;
  readonly rows: UsageAnswer["rows"];
  readonly windows: Windows;
}

interface Range {
  readonly sinceMs: number;
  readonly untilMs: number;
}

/** Usage of a tenant. @throws RelogError not_found, bad_request, store_unavailable when nothing is known at all */
export async function usageAnswer(ports: UsagePorts, tenant: string, query: UsageQuery): Promise<UsageAnswer> {
  const account = ports.account(tenant);
  if (account === undefined) throw new RelogError("not_found", `there is no tenant "${tenant}" that this key reaches`);
  const nowMs = ports.nowMs();
  const { by, zone = account.zone } = query;
  const untilMs = query.until === undefined ? nowMs : Date.parse(query.until);
  const sinceMs = query.since === undefined ? untilMs - BACK_MS[by] : Date.parse(query.since);
  if (sinceMs >= untilMs) throw new RelogError("bad_request", "since must be before until");
  const kept = await ports.windows(tenant);
  const seen = await look(ports, tenant, account.zone, { ...query, zone }, { sinceMs, untilMs }).catch((error: unknown) => {
    if (kept === undefined || !isAway(error)) throw error;
    return `ClickHouse cannot be asked: ${messageOf(error)}`;
  });
  const away = typeof seen === "string";
  const rows = away ? [] : seen.rows;
  const states = quotaStates(account.quotas, kept ?? (seen as Seen).windows, away ? undefined : seen.windows.last, nowMs);
  return {
    tenant,
    zone,
    by,
    since: iso(sinceMs),
    until: iso(untilMs),
    complete: !away && seen.note === null,
    note: away ? seen : seen.note,
    closed_until: away || seen.closedUntilMs === 0 ? null : iso(seen.closedUntilMs),
    rows,
    totals: { records: sumOf(rows, "records"), bytes: sumOf(rows, "bytes") },
    quotas: states.map(({ window, endsMs, ...state }) => ({
      ...state,
      window: { from: iso(window.fromMs), to: iso(window.toMs) },
      ends: endsMs === null ? null : iso(endsMs),
    })),
  };
}

const sumOf = (rows: readonly { readonly records: number; readonly bytes: number }[], of: "records" | "bytes"): number =>
  rows.reduce((sum, row) => sum + row[of], 0);

const isAway = (error: unknown): boolean =>
  error instanceof RelogError && (error.code === "store_unavailable" || error.code === "not_ready");

async function look(
  ports: UsagePorts,
  tenant: string,
  ownZone: string,
  { by, zone, group, since, until }: UsageQuery & { readonly zone: string },
  { sinceMs, untilMs }: Range,
): Promise<Seen> {
  const { store } = ports;
  const { generation, note } = await asked(ports);
  const services = group === "service";
  const request = { tenant, generation, by, zone, services, sinceMs, untilMs, align: since === undefined, rowsMax: ROWS_MAX + 1 };
  const found = await store.rows(request);
  if (found.length > ROWS_MAX)
    throw new RelogError("bad_request", `more than ${ROWS_MAX} rows: narrow since and until, or take longer steps`);
  const closedUntilMs = await store.closedUntilMs();
  // A step that is cut by what was asked for says so; one that is under way does not end now.
  const firstMs = since === undefined ? Number.NEGATIVE_INFINITY : Math.floor(sinceMs / QUARTER_MS) * QUARTER_MS;
  const lastMs = until === undefined ? Number.POSITIVE_INFINITY : Math.ceil(untilMs / QUARTER_MS) * QUARTER_MS;
  const rows = found.map(({ fromMs, toMs, service, records, bytes }) => {
    const endMs = Math.min(toMs, lastMs);
    const named = services ? { service } : {};
    return { from: iso(Math.max(fromMs, firstMs)), to: iso(endMs), ...named, records, bytes, closed: endMs <= closedUntilMs };
  });
  return { generation, note, closedUntilMs, rows, windows: await store.windows(tenant, generation, ownZone, ports.nowMs()) };
}

/** What limits would have done. @throws RelogError as usageAnswer, and always when ClickHouse cannot be asked */
export async function whatIfAnswer(ports: UsagePorts, tenant: string, query: WhatIfQuery): Promise<WhatIfAnswer> {
  const account = ports.account(tenant);
  if (account === undefined) throw new RelogError("not_found", `there is no tenant "${tenant}" that this key reaches`);
  if (REPLAYED.every((name) => query[name] === undefined))
    throw new RelogError("bad_request", `give at least one of ${REPLAYED.join(", ")}`);
  const { zone = account.zone, days } = query;
  const untilMs = ports.nowMs();
  const sinceMs = Math.floor((untilMs - days * DAY_MS) / QUARTER_MS) * QUARTER_MS;
  const { generation, note } = await asked(ports);
  const quarters = await ports.store.quarters(tenant, generation, zone, sinceMs, untilMs);
  return {
    tenant,
    zone,
    since: iso(sinceMs),
    until: iso(untilMs),
    complete: note === null,
    note,
    limits: whatIf(quarters, query, sinceMs).map(({ atLeast, days: over, ...replay }) => ({
      ...replay,
      at_least: atLeast,
      days: over.map(({ dayMs, hitMs, ...day }) => ({ day: iso(dayMs), hit: hitMs === null ? null : iso(hitMs), ...day })),
    })),
  };
}

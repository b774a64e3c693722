// What is wrong with a batch, line by line.
//
// Promises: bounded in findings and in lines a finding names; everything is counted.

import { DAY_NS } from "../base/clock.ts";
import type { Rules } from "./groups.ts";
import { dayOf, mayBeGone } from "./groups.ts";
import { openLines } from "./open.ts";
import type { Finding, FindingKind, LogSource, TableSource } from "./ports.ts";
import type { Entry } from "./tally.ts";

const LINES_NAMED_MAX = 20;
const ROWS_READ_MAX = 5_000_000;

/** A list of findings that counts what it does not keep. */
export class Findings {
  readonly kept: Finding[] = [];
  total = 0;
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  add(finding: Finding): void {
    this.total++;
    if (this.kept.length < this.#max) this.kept.push(finding);
  }
}

/** Builds a finding that names the first of its lines. */
export function finding(
  kind: FindingKind,
  place: { readonly tenant: string; readonly batch: string; readonly shard?: number; readonly seq?: number },
  lines: readonly number[],
  detail: string,
): Finding {
  const { tenant, batch, shard = null, seq = null } = place;
  const named = [...lines].sort((a, b) => a - b).slice(0, LINES_NAMED_MAX);
  return { kind, tenant, batch, shard, seq, lines: named, records: lines.length, detail };
}

/** Rows of one batch: how often each line is there, by tenant, and days that a line lies on. */
interface Rows {
  readonly times: Map<string, Map<number, number>>;
  readonly days: Map<number, number>;
}

async function rowsOf(table: TableSource, batches: readonly string[], rules: Rules, signal: AbortSignal): Promise<Map<string, Rows>> {
  const found = new Map<string, Rows>();
  for await (const { tenant, batch, day, line } of table.lines(batches, ROWS_READ_MAX, signal)) {
    if (rules.expired?.(tenant, BigInt(day) * DAY_NS)) continue;
    const rows = found.get(batch) ?? { times: new Map<string, Map<number, number>>(), days: new Map<number, number>() };
    found.set(batch, rows);
    const times = rows.times.get(tenant) ?? new Map<number, number>();
    rows.times.set(tenant, times);
    times.set(line, (times.get(line) ?? 0) + 1);
    rows.days.set(line, day);
  }
  return found;
}

/** The lines of a message that must be in the table now, with their days when it was opened. */
async function wantedOf(log: LogSource, entry: Entry, rules: Rules): Promise<Map<number, number | undefined>> {
  const { tenant, firstLine, records, minTimestamp, maxTimestamp } = entry.envelope;
  const wanted = new Map<number, number | undefined>();
  const [first, last] = [dayOf(minTimestamp), dayOf(maxTimestamp)];
  const opened = first === last ? undefined : await openLines(log, entry);
  const want = (line: number, day: number): void => {
    const parked = entry.parked === "all" || entry.parked?.has(line);
    if (!parked && !rules.expired?.(tenant, BigInt(day) * DAY_NS)) wanted.set(line, day);
  };
  if (opened !== undefined && "lines" in opened) for (const [day, lines] of opened.lines) for (const line of lines) want(line, day);
  else for (let line = firstLine; line < firstLine + records; line++) want(line, first);
  return wanted;
}

export interface ShardDamage {
  readonly shard: number;
  readonly missing: boolean;
  readonly duplicated: boolean;
}

/** Says what is wrong with some batches. @param entries their messages in the log @returns one item for each damaged message */
export async function explain(
  log: LogSource,
  table: TableSource,
  batches: readonly string[],
  entries: ReadonlyMap<string, readonly Entry[]>,
  rules: Rules,
  findings: Findings,
  signal: AbortSignal,
): Promise<ShardDamage[]> {
  const damage: ShardDamage[] = [];
  const found = await rowsOf(table, batches, rules, signal);
  for (const batch of batches) {
    const rows: Rows = found.get(batch) ?? { times: new Map(), days: new Map() };
    for (const entry of entries.get(batch) ?? []) {
      const hurt = inspect(entry, await wantedOf(log, entry, rules), rows, findings);
      if (hurt !== undefined) damage.push(hurt);
    }
    // What the messages have not taken is nobody's.
    for (const [tenant, times] of rows.times) {
      const lines = [...times].flatMap(([line, left]) => (left > 0 ? [line] : []));
      if (lines.length === 0 || mayBeGone(batch, rules.windows)) continue;
      findings.add(finding("extra", { tenant, batch }, lines, "the table holds rows of which the log knows nothing"));
    }
  }
  return damage;
}

/** Takes a message's lines out of the rows, and says what does not fit. */
function inspect(entry: Entry, wanted: ReadonlyMap<number, number | undefined>, rows: Rows, findings: Findings): ShardDamage | undefined {
  const { tenant, batch, firstLine, records } = entry.envelope;
  const place = { tenant, batch, shard: entry.place.shard, seq: entry.seq };
  const times = rows.times.get(tenant) ?? new Map<number, number>();
  const [missing, duplicated, parked, misplaced]: number[][] = [[], [], [], []];
  for (let line = firstLine; line < firstLine + records; line++) {
    const there = times.get(line) ?? 0;
    times.delete(line);
    const day = wanted.get(line);
    if (!wanted.has(line)) {
      if (there > 0) parked!.push(line);
    } else if (there === 0) missing!.push(line);
    else if (there > 1) duplicated!.push(line);
    else if (day !== undefined && rows.days.get(line) !== day) misplaced!.push(line);
  }
  if (missing!.length > 0)
    findings.add(finding("missing", place, missing!, `${missing!.length} of ${records} records are not in the table, nor parked`));
  if (duplicated!.length > 0) findings.add(finding("duplicated", place, duplicated!, "these lines are in the table more than once"));
  if (parked!.length > 0) findings.add(finding("parked", place, parked!, "these lines are parked, and in the table all the same"));
  if (misplaced!.length > 0) findings.add(finding("misplaced", place, misplaced!, "the rows lie on other days than the log says"));
  if (missing!.length + duplicated!.length === 0) return undefined;
  return { shard: entry.place.shard, missing: missing!.length > 0, duplicated: duplicated!.length > 0 };
}

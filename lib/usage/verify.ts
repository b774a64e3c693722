// `relog usage verify`: usage recomputed from the records of the log, against the closed table and what the generation counts.
//
// Promises: nothing is taken from headers but who a message is of; figures are compared per tenant, quarter of an hour and
// service, hour by hour, so that memory grows with what an hour holds; what the log does not hold any more is said and left out.

import type { StoredMessage } from "../event/envelope.ts";
import { readEnvelope } from "../event/envelope.ts";
import type { Figures, StoredFigures } from "../store/usage.ts";
import { QUARTER_MS } from "../store/usage.ts";
import { OTHER_SERVICES } from "../store/usage-sql.ts";
import type { LogPorts } from "./log.ts";
import { mergedLog } from "./log.ts";
import { measure } from "./measure.ts";

export interface UsageVerifyPorts {
  readonly log: LogPorts;
  /** Lines of a message that are parked, and so in no table. */
  parked(shard: number, seq: number, batch: string): "all" | ReadonlySet<number> | undefined;
  /** Whether the tables of that time may have let a tenant's records of this time go. @param timestampNs nanoseconds since the epoch */
  expired(tenant: string, timestampNs: bigint, atMs: number): boolean;
  /** Whether a tenant was deleted: its records are removed as a whole, and those that came late never counted. */
  removed(tenant: string): boolean;
  /** Both tables' figures. */
  stored(sinceMs: number, untilMs: number): Promise<readonly StoredFigures[]>;
  /** Gives way to others, after so many records more. */
  pace(records: number, signal: AbortSignal): Promise<void>;
  nowMs(): number;
}

export interface UsageRange {
  /** Both at quarters of an hour. */
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly closedUntilMs: number;
  /** Only this one. */
  readonly tenant: string | undefined;
}

/** Where a figure is not what the log says. `late`: stored so long after it was observed that the quarter was compared already. */
export interface UsageDifference {
  readonly where: "closed" | "live" | "late";
  readonly tenant: string;
  readonly quarterMs: number;
  readonly service: string;
  /** What the log says; and what it holds besides of records that were too old to be stored when they came. */
  readonly log: Figures;
  readonly tooOld: Figures;
  readonly table: Figures;
}

export interface UsageVerification {
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly closedUntilMs: number;
  /** Of what was compared, as the log says. */
  readonly totals: Figures & { readonly groups: number; readonly messages: number };
  /** Times that were not compared, because the log does not hold everything of them. */
  readonly leftOut: readonly { readonly fromMs: number; readonly toMs: number }[];
  readonly differences: readonly UsageDifference[];
  readonly differencesTotal: number;
  /** Messages that cannot be read, are not parked and not of a deleted tenant. */
  readonly unreadable: number;
  readonly ok: boolean;
}

const HOUR_MS = 3_600_000;
/** A record is stored this long after it was observed at most; and clocks differ. */
const LATE_MS = 3_600_000;
/** A message that is gone may have been observed this long before it was stored, or by clocks that differ so much. */
const MARGIN_MS = 5 * 60_000;
const DIFFERENCES_MAX = 1_000;
const PACED_RECORDS = 5_000;

interface Sums {
  records: number;
  bytes: number;
  /** Of these, what has expired since. */
  leftRecords: number;
  leftBytes: number;
  oldRecords: number;
  oldBytes: number;
}

const NOTHING: Sums = { records: 0, bytes: 0, leftRecords: 0, leftBytes: 0, oldRecords: 0, oldBytes: 0 };
const NO_FIGURES: Figures = { records: 0, bytes: 0 };
const keyOf = (tenant: string, quarterMs: number, service: string): string => `${tenant} ${quarterMs} ${service}`;

/** Recomputes and compares. @throws what the ports throw, the signal's reason */
export async function verifyUsage(
  ports: UsageVerifyPorts,
  range: UsageRange,
  signal: AbortSignal,
  progress: (records: number) => void = () => undefined,
): Promise<UsageVerification> {
  const recount = new Recount(ports, range);
  let unpaced = 0;
  let nextMs = 0;
  const upTo = async (ms: number): Promise<void> => {
    nextMs = Math.max(nextMs, Math.floor(recount.beginMs / HOUR_MS) * HOUR_MS);
    for (; nextMs < range.untilMs && nextMs + HOUR_MS <= ms; nextMs += HOUR_MS) await recount.compare(nextMs, nextMs + HOUR_MS);
  };
  for await (const item of mergedLog(ports.log, range.sinceMs - LATE_MS, range.untilMs + LATE_MS, signal)) {
    if (item.kind === "begin") recount.beginMs = Math.max(recount.beginMs, item.ms);
    if (item.kind === "gap") recount.gap(item.fromMs - MARGIN_MS, item.toMs + MARGIN_MS);
    if (item.kind !== "message") continue;
    const { message, shard } = item;
    await upTo(message.storedMs - LATE_MS);
    const records = await recount.add(shard, message);
    progress(records);
    unpaced += records;
    if (unpaced < PACED_RECORDS) continue;
    await ports.pace(unpaced, signal);
    unpaced = 0;
  }
  await upTo(Number.POSITIVE_INFINITY);
  return recount.result();
}

class Recount {
  /** Where comparing begins: the log goes back to here. */
  beginMs: number;
  readonly #ports: UsageVerifyPorts;
  readonly #range: UsageRange;
  /** By hour, then by tenant, quarter and service. */
  readonly #hours = new Map<number, Map<string, Sums>>();
  readonly #gaps: { readonly fromMs: number; readonly toMs: number }[] = [];
  readonly #leftOut: { fromMs: number; toMs: number }[] = [];
  readonly #differences: UsageDifference[] = [];
  readonly #totals = { records: 0, bytes: 0, groups: 0, messages: 0 };
  #differencesTotal = 0;
  #unreadable = 0;
  #comparedMs = Number.NEGATIVE_INFINITY;

  constructor(ports: UsageVerifyPorts, range: UsageRange) {
    this.#ports = ports;
    this.#range = range;
    this.beginMs = range.sinceMs;
  }

  gap(fromMs: number, toMs: number): void {
    if (toMs > this.#range.sinceMs && fromMs < this.#range.untilMs) this.#gaps.push({ fromMs, toMs });
  }

  /** Adds a message's records. @returns how many there were */
  async add(shard: number, message: StoredMessage): Promise<number> {
    const envelope = readEnvelope(message.header);
    const batch = "fault" in envelope ? "" : envelope.batch;
    const parked = this.#ports.parked(shard, message.seq, batch);
    if (parked === "all" || (!("fault" in envelope) && this.#range.tenant !== undefined && envelope.tenant !== this.#range.tenant))
      return 0;
    const measured = "fault" in envelope ? undefined : await measure(message.payload).catch(() => undefined);
    if ("fault" in envelope || measured === undefined) {
      // Of a deleted tenant nothing is projected, nor parked.
      if (!this.#ports.removed(message.subject.split(".")[2] ?? "")) this.#unreadable++;
      return 0;
    }
    this.#totals.messages++;
    const { tenant, minTimestamp } = envelope;
    const nowMs = this.#ports.nowMs();
    const ages = this.#ports.expired(tenant, minTimestamp, nowMs);
    for (let i = 0; i < measured.records; i++) {
      if (parked?.has(measured.lines[i]!)) continue;
      const observedMs = Number(measured.observed[i]! / 1_000_000n);
      const sums = this.#sumsOf(tenant, observedMs, measured.services[i]!);
      if (sums === undefined) continue;
      const [size, time] = [measured.sizes[i]!, measured.times[i]!];
      if (ages && this.#ports.expired(tenant, time, observedMs)) {
        sums.oldRecords++;
        sums.oldBytes += size;
        continue;
      }
      sums.records++;
      sums.bytes += size;
      if (ages && this.#ports.expired(tenant, time, nowMs)) {
        sums.leftRecords++;
        sums.leftBytes += size;
      }
    }
    return measured.records;
  }

  #sumsOf(tenant: string, observedMs: number, service: string): Sums | undefined {
    const quarterMs = Math.floor(observedMs / QUARTER_MS) * QUARTER_MS;
    if (quarterMs < this.beginMs || quarterMs >= this.#range.untilMs) return undefined;
    const hourMs = Math.floor(quarterMs / HOUR_MS) * HOUR_MS;
    if (hourMs < this.#comparedMs) {
      const log = { records: 1, bytes: 0 };
      this.#differ({ where: "late", tenant, quarterMs, service, log, tooOld: NO_FIGURES, table: NO_FIGURES });
      return undefined;
    }
    const hour = this.#hours.get(hourMs) ?? new Map<string, Sums>();
    this.#hours.set(hourMs, hour);
    const key = keyOf(tenant, quarterMs, service);
    const sums = hour.get(key) ?? { ...NOTHING };
    hour.set(key, sums);
    return sums;
  }

  async compare(fromMs: number, toMs: number): Promise<void> {
    const { untilMs } = this.#range;
    const logged = this.#hours.get(fromMs) ?? new Map<string, Sums>();
    this.#hours.delete(fromMs);
    this.#comparedMs = toMs;
    const rows = await this.#ports.stored(Math.max(fromMs, this.beginMs), Math.min(toMs, untilMs));
    const stored = new Map(rows.map((row) => [keyOf(row.tenant, row.quarterMs, row.service), row]));
    const all = new Map<string, Sums>([...stored.keys()].map((key) => [key, { ...NOTHING }]));
    for (const [key, sums] of logged) add(all, folded(key, stored), sums);
    const told = new Set([...all.keys()].map((key) => Number(key.split(" ", 2)[1])));
    const whole = new Set([...told].sort((a, b) => a - b).filter((at) => this.#isWhole(at)));
    for (const [key, sums] of all) {
      const [tenant = "", quarter] = key.split(" ", 2);
      const quarterMs = Number(quarter);
      if (!whole.has(quarterMs)) continue;
      const service = key.slice(`${tenant} ${quarter} `.length);
      this.#totals.groups++;
      this.#totals.records += sums.records;
      this.#totals.bytes += sums.bytes;
      this.#judge(tenant, quarterMs, service, sums, stored.get(key));
    }
  }

  /** Whether the log holds everything of a quarter; notes it when it does not. */
  #isWhole(quarterMs: number): boolean {
    const endMs = quarterMs + QUARTER_MS;
    if (!this.#gaps.some(({ fromMs, toMs }) => fromMs < endMs && toMs > quarterMs)) return true;
    const last = this.#leftOut.at(-1);
    if (last?.toMs === quarterMs) last.toMs = endMs;
    else this.#leftOut.push({ fromMs: quarterMs, toMs: endMs });
    return false;
  }

  #judge(tenant: string, quarterMs: number, service: string, sums: Sums, row: StoredFigures | undefined): void {
    const { closed, live } = row ?? { closed: NO_FIGURES, live: NO_FIGURES };
    const log = { records: sums.records, bytes: sums.bytes };
    const tooOld = { records: sums.oldRecords, bytes: sums.oldBytes };
    const most = { records: log.records + tooOld.records, bytes: log.bytes + tooOld.bytes };
    const left = { records: log.records - sums.leftRecords, bytes: log.bytes - sums.leftBytes };
    const isClosed = quarterMs + QUARTER_MS <= this.#range.closedUntilMs;
    // What is not closed yet is what is counted until then.
    const table = isClosed ? closed : { records: Math.max(closed.records, live.records), bytes: Math.max(closed.bytes, live.bytes) };
    const told = { tenant, quarterMs, service, log, tooOld };
    // What came behind the deletion was never counted.
    const removed = this.#ports.removed(tenant);
    if (!within(table, removed ? NO_FIGURES : log, most)) this.#differ({ ...told, where: "closed", table });
    if (!within(live, removed ? NO_FIGURES : left, most)) this.#differ({ ...told, where: "live", table: live });
  }

  #differ(difference: UsageDifference): void {
    this.#differencesTotal++;
    if (this.#differences.length < DIFFERENCES_MAX) this.#differences.push(difference);
  }

  result(): UsageVerification {
    const { sinceMs, untilMs, closedUntilMs } = this.#range;
    return {
      sinceMs,
      untilMs,
      closedUntilMs,
      totals: this.#totals,
      leftOut: [...(this.beginMs > sinceMs ? [{ fromMs: sinceMs, toMs: Math.min(this.beginMs, untilMs) }] : []), ...this.#leftOut],
      differences: this.#differences,
      differencesTotal: this.#differencesTotal,
      unreadable: this.#unreadable,
      ok: this.#differencesTotal === 0 && this.#unreadable === 0,
    };
  }
}

const within = (value: Figures, least: Figures, most: Figures): boolean =>
  value.records >= least.records && value.records <= most.records && value.bytes >= least.bytes && value.bytes <= most.bytes;

/** The row that a service is counted in: its own, or that of the rest where there is one and it has none of its own. */
function folded(key: string, stored: ReadonlyMap<string, StoredFigures>): string {
  if (stored.has(key)) return key;
  const rest = `${key.split(" ", 2).join(" ")} ${OTHER_SERVICES}`;
  return stored.has(rest) ? rest : key;
}

function add(all: Map<string, Sums>, key: string, sums: Sums): void {
  const known = all.get(key);
  if (known === undefined) {
    all.set(key, { ...sums });
    return;
  }
  for (const name of Object.keys(NOTHING) as (keyof Sums)[]) known[name] += sums[name];
}

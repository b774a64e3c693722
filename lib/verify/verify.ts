// The proof that a generation's table holds what the log says: every sequence, every tenant and day, every count.
//
// Promises: while everything goes on, no difference is reported that is none, and none is passed over that is in reach of the
// log; one pass over the log and one over the table when they agree, and bounded further ones to name the batches when they do
// not; nothing is changed anywhere. How and why: docs/adr/0012-verify.md.

import { DAY_NS } from "../base/clock.ts";
import { sleep } from "../base/loop.ts";
import { caughtUp, cutAt, lateBatches, spansOf } from "./cut.ts";
import { explain, Findings, finding } from "./findings.ts";
import type { Groups, Key, Rules } from "./groups.ts";
import { collect, dayText, differencesOf, keyOf, LEVELS, mayBeGone } from "./groups.ts";
import { Letters } from "./letters.ts";
import { narrow } from "./narrow.ts";
import type { DayResult, DayState, Finding, Progress, Target, Verification, VerifyOptions, VerifyPorts } from "./ports.ts";
import { VERIFY_DEFAULTS } from "./ports.ts";
import { ShardCounts } from "./shards.ts";
import type { Entry, Ranges, ShardSpan, Tally } from "./tally.ts";
import { tally } from "./tally.ts";

const BATCHES_EXPLAINED = 200;
const PROGRESS_EVERY = 10_000;

/** Everything of one try. */
interface Round {
  readonly places: readonly ShardSpan[];
  readonly cut: string;
  readonly letters: Letters;
  readonly log: Tally;
  readonly table: Groups;
  readonly rules: Rules;
  readonly findings: Findings;
  readonly shards: ShardCounts;
}

/**
 * Compares the log with a generation's table.
 * @throws Error when the projection does not catch up, what the ports throw, the signal's reason
 */
export async function verifyGeneration(
  ports: VerifyPorts,
  target: Target,
  signal: AbortSignal,
  progress: Progress = () => undefined,
  options: Partial<VerifyOptions> = {},
): Promise<Verification> {
  const all = { ...VERIFY_DEFAULTS, ...options };
  const cut = cutAt(all.now());
  progress("waiting for appends that are under way", 0);
  await sleep(all.settleMs, signal);
  for (let left = all.rounds - 1; ; left--) {
    signal.throwIfAborted();
    const round = await compare(ports, target, cut, signal, progress, all);
    const { keys } = differencesOf(round.log.groups, round.table, round.rules);
    progress("naming differences", 0);
    const searched = await name(ports, round, keys, all, signal);
    progress("comparing rows and counts", 0);
    const counted = await compareCounts(ports, round, signal);
    const late = await lateBatches(ports.log, round.places, target.shards, cut, signal);
    // What came late may or may not be in what the table answered. A letter that is retried is in the table before it is deleted.
    const settled = late.size === 0 && round.findings.kept.every(({ kind }) => kind !== "parked");
    if (settled || left <= 0) return resultOf(target, round, keys, searched, counted, late);
    await sleep(all.settleMs, signal);
  }
}

async function compare(
  ports: VerifyPorts,
  target: Target,
  cut: string,
  signal: AbortSignal,
  progress: Progress,
  options: VerifyOptions,
): Promise<Round> {
  const places = await spansOf(ports.log, target.shards);
  progress("waiting for the projection to reach the streams' ends", 0);
  await caughtUp(ports.progress, places, options, signal);
  progress("reading dead letters", 0);
  const letters = await Letters.read(ports.letters(signal));
  const findings = new Findings(options.findingsMax);
  const shards = new ShardCounts(places, findings, ports.expired);
  let read = 0;
  progress("reading the log", 0);
  const log = await tally(
    ports.log,
    letters,
    places,
    { cut, chars: LEVELS[0], wanted: ports.wanted, deleted: ports.deleted, within: undefined },
    signal,
    {
      ...shards.events,
      message(place) {
        shards.events.message(place);
        if (++read % PROGRESS_EVERY === 0) progress("reading the log", read);
      },
    },
  );
  progress("reading the table", read);
  const table = await collect(ports.table.groups({ cut, of: "lines", chars: LEVELS[0], within: undefined }, signal));
  return { places, cut, letters, log, table, rules: { windows: log.windows, expired: ports.expired }, findings, shards };
}

/** Finds the batches behind groups that differ, and says what is wrong with them. @returns whether all were found */
async function name(
  ports: VerifyPorts,
  round: Round,
  keys: readonly string[],
  options: VerifyOptions,
  signal: AbortSignal,
): Promise<boolean> {
  if (keys.length === 0) return true;
  const { letters, places, cut, findings, shards } = round;
  /** Where the batches of each level's prefixes lie. */
  const ranges: Ranges[] = [round.log.ranges];
  const windows = [...round.log.windows];
  const rules = { ...round.rules, windows };
  const tallyOf = async (level: number, chars: number, prefixes: readonly string[], onEntry?: (entry: Entry) => void): Promise<Tally> => {
    const within = { prefixes: new Set(prefixes), chars: LEVELS[level - 1]!, ranges: ranges[level - 1]! };
    const events = onEntry === undefined ? {} : { entry: onEntry };
    const found = await tally(
      ports.log,
      letters,
      places,
      { cut, chars, wanted: ports.wanted, deleted: ports.deleted, within },
      signal,
      events,
    );
    windows.push(...found.windows);
    return found;
  };
  const narrowed = await narrow(
    keys,
    async (level, prefixes) => {
      const log = await tallyOf(level, LEVELS[level]!, prefixes);
      ranges[level] = log.ranges;
      return [log.groups, await collect(ports.table.groups({ cut, of: "lines", chars: LEVELS[level]!, within: prefixes }, signal))];
    },
    (a, b) => differencesOf(a, b, rules),
    options.findingsMax,
    async (batches) => {
      for (let at = 0; at < batches.length; at += BATCHES_EXPLAINED) {
        const some = batches.slice(at, at + BATCHES_EXPLAINED);
        const entries = new Map<string, Entry[]>();
        await tallyOf(LEVELS.length, LEVELS.at(-1)!, some, (entry) => {
          const { batch } = entry.envelope;
          entries.set(batch, [...(entries.get(batch) ?? []), entry]);
        });
        shards.damaged(await explain(ports.log, ports.table, some, entries, rules, findings, signal));
      }
    },
  );
  return narrowed.searched;
}

interface Counted {
  readonly counted: number;
  readonly wrong: readonly { readonly tenant: string; readonly day: number; readonly rows: number; readonly counted: number }[];
}

async function compareCounts(ports: VerifyPorts, { rules, findings }: Round, signal: AbortSignal): Promise<Counted> {
  const wrong: { tenant: string; day: number; rows: number; counted: number }[] = [];
  let all = 0;
  for await (const { tenant, day, rows, counted, same } of ports.table.counts(signal)) {
    all += counted;
    if (same && rows === counted) continue;
    // A partition that is on its way out may have left one and not the other.
    if (rules.expired?.(tenant, BigInt(day) * DAY_NS)) continue;
    wrong.push({ tenant, day, rows, counted });
    const detail = `${dayText(day)}: the projection counts ${counted} records where ${rows} rows are${rows === counted ? ", in other groups" : ""}`;
    findings.add({ ...finding("counts", { tenant, batch: "" }, [], detail), records: Math.abs(rows - counted) });
  }
  return { counted: all, wrong };
}

function resultOf(
  target: Target,
  round: Round,
  keys: readonly string[],
  searched: boolean,
  counts: Counted,
  late: ReadonlySet<string>,
): Verification {
  const { log, table, findings, shards, rules, cut } = round;
  const latePrefixes = new Set([...late].map((batch) => batch.slice(0, LEVELS[0])));
  const explained = (one: Finding): boolean => late.has(one.batch);
  const kept = findings.kept.filter((one) => !explained(one));
  const findingsTotal = findings.total - (findings.kept.length - kept.length);
  const named = new Set(kept.map(({ tenant, batch }) => `${tenant} ${batch.slice(0, LEVELS[0])}`));
  const states = new Map<string, DayState>();
  for (const text of keys) {
    const key = keyOf(text);
    worsen(states, key, stateOf(key, log.groups.get(text)?.records ?? 0, table.get(text)?.records ?? 0));
  }
  for (const text of differencesOf(log.groups, table, rules).more) worsen(states, keyOf(text), "more");
  for (const { tenant, day } of counts.wrong) worsen(states, { tenant, day, prefix: "" }, "differs");
  const { days, totals } = daysOf(log.groups, table, states);
  const different = findingsTotal > 0 || days.some(({ state }) => state === "differs");
  const uncertain = late.size > 0 || days.some(({ state }) => state === "uncertain");
  const verdict = different ? "different" : uncertain ? "uncertain" : "equal";
  const { site, generation } = target;
  const shown = { shards: shards.results(), days, totals: { ...totals, counted: counts.counted }, findings: kept, findingsTotal };
  return { site, generation, cut, ...shown, searched, verdict, ok: verdict === "equal" };

  function stateOf({ tenant, prefix }: Key, inLog: number, inTable: number): DayState {
    if (named.has(`${tenant} ${prefix}`)) return "differs";
    if (latePrefixes.has(prefix)) return "uncertain";
    if (!mayBeGone(prefix, rules.windows) || inTable < inLog) return "differs";
    return searched ? "more" : "uncertain";
  }
}

const WORSE: readonly DayState[] = ["more", "uncertain", "differs"];
const dayKey = ({ tenant, day }: Key): string => `${day}\t${tenant}`;

function worsen(states: Map<string, DayState>, key: Key, state: DayState): void {
  const known = states.get(dayKey(key));
  if (known === undefined || WORSE.indexOf(state) > WORSE.indexOf(known)) states.set(dayKey(key), state);
}

/** Sums of days, and those days that are not equal. */
function daysOf(log: Groups, table: Groups, states: ReadonlyMap<string, DayState>) {
  const sums = new Map<string, { tenant: string; day: number; log: number; table: number }>();
  const totals = { tenantDays: 0, log: 0, table: 0 };
  for (const [side, groups] of [
    ["log", log],
    ["table", table],
  ] as const) {
    for (const [text, { records }] of groups) {
      const key = keyOf(text);
      const sum = sums.get(dayKey(key)) ?? { tenant: key.tenant, day: key.day, log: 0, table: 0 };
      sums.set(dayKey(key), sum);
      sum[side] += records;
      totals[side] += records;
    }
  }
  for (const text of states.keys()) {
    const [day, ...tenant] = text.split("\t");
    if (!sums.has(text)) sums.set(text, { tenant: tenant.join("\t"), day: Number(day), log: 0, table: 0 });
  }
  totals.tenantDays = sums.size;
  const days: DayResult[] = [...sums].sort().flatMap(([text, { tenant, day, ...records }]) => {
    const state = states.get(text);
    return state === undefined ? [] : [{ tenant, day: dayText(day), ...records, state }];
  });
  return { days, totals };
}

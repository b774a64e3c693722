// `relog dead`: what could not be projected, and what to do about it.

import { hostname, userInfo } from "node:os";
import type { Given } from "../../lib/cli/args.ts";
import { flag, integer, readArguments, subcommand, timeMs, word } from "../../lib/cli/args.ts";
import type { Command, Io } from "../../lib/cli/command.ts";
import { EXIT, UsageError } from "../../lib/cli/command.ts";
import { jsonLine, printable } from "../../lib/cli/printable.ts";
import type { Column } from "../../lib/cli/table.ts";
import { jsonOption, writeRows } from "../../lib/cli/table.ts";
import type { Selection } from "../../lib/dead/operate.ts";
import { dropSelected, LETTERS_PER_CALL_MAX, retrySelected } from "../../lib/dead/operate.ts";
import type { DeadPorts, RetryResult } from "../../lib/dead/ports.ts";
import type { ShownLetter } from "../../lib/dead/show.ts";
import { RECORDS_SHOWN_MAX, showLetter, shownHead } from "../../lib/dead/show.ts";
import { readRetention, retentionFault } from "../../lib/event/retention.ts";
import type { DeadLetterCount, DeadLetterFilter, DeadLetterHead } from "../../lib/streams/dead-letters.ts";
import { archivedOrigin, deadLetters } from "../parts/dead.ts";
import { libraryOf, projectionSettings } from "../parts/projection.ts";
import { openDirectory, policyOf } from "../parts/tenants.ts";
import { agreed, closing } from "./projection.ts";
import { openSite } from "./site.ts";

const LIST_MAX = 100_000;
const FILTERS = {
  tenant: word("the name of a tenant"),
  reason: word(),
  since: timeMs(),
  until: timeMs(),
  site: word("the name of a site"),
  generation: integer(1),
  shard: integer(0, 255),
  batch: word("a batch's id"),
};
const LIST = { ...FILTERS, after: integer(0), limit: integer(1, LIST_MAX), summary: flag(), ...jsonOption };
const SHOW = { records: integer(0, RECORDS_SHOWN_MAX), ...jsonOption };
const RETRY = { ...FILTERS, all: flag(), dryRun: flag(), ...jsonOption };
const DROP = { ...RETRY, yes: flag() };

const LIST_DEFAULT = 100;
const RECORDS_DEFAULT = 10;
/** How long a retry that is under way may take to end after Ctrl-C. */
const FINISH_MS = 5_000;

export const command: Command = {
  summary: "Lists, shows, retries and drops dead letters: what could not be projected.",
  usage: `list [filters] [--limit N] [--after SEQ] [--summary] [--json]
       relog dead show SEQ [--records N] [--json]
       relog dead retry SEQ... | filters | --all  [--dry-run] [--json]
       relog dead drop SEQ... | filters | --all  --yes | --dry-run  [--json]

list shows letters, oldest first; --summary counts them by reason and tenant instead. show prints where a letter came from, why,
and its records, or the first bytes of what is no batch. retry projects letters again into the table that refused them, after
what refused them was mended: each record is stored exactly once however often this is called, and letters that are stored
whole are deleted. drop deletes letters for good; each is logged, and the drop is an event in the stream CONTROL.

filters, all of which must hold:
  --tenant NAME      of this tenant ("unknown": of none)
  --reason WORD      such as record_refused
  --since TIME       parked from then on
  --until TIME       parked before then
  --site NAME, --generation N, --shard N, --batch ID

  --limit N          at most N letters (${LIST_DEFAULT})
  --after SEQ        letters behind this sequence
  --records N        at most N records of the letter (${RECORDS_DEFAULT})
  --all              every letter: must be said when there is neither a filter nor a sequence
  --dry-run          says what would be done; a retry opens the letters, and does not ask ClickHouse
  --yes              drops them
  --json             one JSON object a line

Exit code of retry: 0 when every letter was stored, 1 when some were refused or skipped.`,
  async run(args, io) {
    const [name, rest] = subcommand(args, ["list", "show", "retry", "drop"]);
    switch (name) {
      case "list":
        return await listLetters(rest, io);
      case "show":
        return await show(rest, io);
      case "retry":
        return await retry(rest, io);
      case "drop":
        return await drop(rest, io);
      default:
        throw name satisfies never;
    }
  },
};

type Filters = Given<typeof FILTERS>;

function filterOf({ tenant, reason, site, generation, shard, batch, since, until }: Filters): DeadLetterFilter {
  return { tenant, reason, site, generation, shard, batch, sinceMs: since, untilMs: until };
}

const LETTER_COLUMNS: readonly Column<DeadLetterHead>[] = [
  { title: "seq", of: ({ seq }) => seq },
  { title: "parked", of: ({ storedMs }) => new Date(storedMs) },
  { title: "tenant", of: ({ tenant }) => tenant },
  { title: "reason", of: ({ reason }) => reason },
  { title: "from", of: ({ site, generation, stream, originSeq }) => `${site}/${generation} ${stream}:${originSeq}` },
  { title: "batch", of: ({ batch }) => batch },
  { title: "lines", of: ({ lines }) => lines },
  { title: "bytes", of: ({ bytes, omittedBytes }) => omittedBytes ?? bytes },
  { title: "detail", of: ({ detail }) => detail },
];

const COUNT_COLUMNS: readonly Column<DeadLetterCount>[] = [
  { title: "reason", of: ({ reason }) => reason },
  { title: "tenant", of: ({ tenant }) => tenant },
  { title: "letters", of: ({ letters }) => letters },
  { title: "bytes", of: ({ bytes }) => bytes },
];

/** @param asksClickHouse false for what needs the streams alone, and so works while the engine is down */
async function open(io: Io, asksClickHouse: boolean): Promise<{ ports: DeadPorts } & AsyncDisposable> {
  const site = await openSite(io, { more: projectionSettings, relations: [retentionFault], asksClickHouse });
  const { nc, clickhouse, values: settings, log } = site;
  const owner = `${hostname()}/${process.pid}`;
  const retention = asksClickHouse ? await agreed(site).catch(closing(site)) : readRetention(settings);
  const tenants = await openDirectory(nc).catch(closing(site));
  const policy = policyOf(tenants.directory, tenants.reader, { site: settings.site, settings: () => retention });
  const parts = { nc, clickhouse, settings, policy, owner, log };
  const ports = deadLetters(parts, archivedOrigin(libraryOf(settings)));
  return {
    ports,
    async [Symbol.asyncDispose]() {
      await tenants[Symbol.asyncDispose]();
      await site[Symbol.asyncDispose]();
    },
  };
}

async function listLetters(args: readonly string[], io: Io): Promise<number> {
  const { options } = readArguments(args, LIST);
  await using site = await open(io, false);
  if (options.summary) {
    const { counts, letters, complete } = await site.ports.count(filterOf(options));
    writeRows(io, COUNT_COLUMNS, counts, options.json);
    if (!complete) io.err(`only the first ${letters} letters were counted\n`);
    return EXIT.ok;
  }
  const page = { after: options.after ?? 0, limit: options.limit ?? LIST_DEFAULT };
  const { letters, cursor } = await site.ports.list(filterOf(options), page);
  writeRows(io, LETTER_COLUMNS, letters, options.json, shownHead);
  if (cursor !== undefined) io.err(`there are more: --after ${cursor}\n`);
  return EXIT.ok;
}

async function show(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, SHOW, ["SEQ"]);
  const [seq] = sequencesOf(positionals);
  await using site = await open(io, false);
  const letter = await site.ports.read(seq!);
  if (letter === undefined) {
    io.err(`relog dead: there is no dead letter ${seq}; it was retried or dropped\n`);
    return EXIT.failed;
  }
  const shown = await showLetter(site.ports, letter, options.records ?? RECORDS_DEFAULT);
  if (options.json) io.out(jsonLine(shown));
  else writeLetter(io, shown);
  return EXIT.ok;
}

function writeLetter(io: Io, { headers, records, records_total: total, unreadable, dump, ...facts }: ShownLetter): void {
  for (const [name, value] of Object.entries(facts)) io.out(`${name}: ${printable(String(value ?? "-"))}\n`);
  io.out("headers:\n");
  for (const [name, value] of headers) io.out(`  ${printable(name)}: ${printable(value)}\n`);
  if (records !== undefined) {
    io.out(`records (${records.length} of ${total}):\n`);
    for (const record of records) io.out(`  ${jsonLine(record)}`);
  }
  if (unreadable !== undefined) io.out(`payload: ${printable(unreadable)}\n`);
  for (const line of dump ?? []) io.out(`  ${line}\n`);
}

function sequencesOf(positionals: readonly string[]): number[] {
  const wrong = positionals.filter((text) => !/^[1-9]\d{0,14}$/.test(text));
  if (wrong.length > 0) throw new UsageError(`a letter is named by its sequence, a whole number: ${wrong.map(printable).join(", ")}`);
  return positionals.map(Number);
}

/** Which letters are meant; nothing at all is never taken for all. */
function selectionOf(options: Filters & { readonly all: boolean }, positionals: readonly string[]): Selection {
  const filter = filterOf(options);
  const sequences = positionals.length === 0 ? undefined : sequencesOf(positionals);
  const filtered = Object.values(filter).some((value) => value !== undefined);
  const ways = [sequences !== undefined, filtered, options.all].filter(Boolean).length;
  if (ways !== 1) throw new UsageError("say which letters: their sequences, or filters, or --all; one of these");
  return { filter, sequences, after: 0, limit: LETTERS_PER_CALL_MAX };
}

/** Page after page of a selection, until its end or the first Ctrl-C. */
async function pages(
  selection: Selection,
  io: Io,
  work: (page: Selection) => Promise<{ readonly cursor: number | undefined }>,
): Promise<void> {
  for (let after: number | undefined = 0; after !== undefined; ) {
    io.signal.throwIfAborted();
    ({ cursor: after } = await work({ ...selection, after }));
  }
}

const RESULT_COLUMNS: readonly Column<RetryResult>[] = [
  { title: "seq", of: ({ seq }) => seq },
  { title: "tenant", of: ({ tenant }) => tenant },
  { title: "outcome", of: ({ outcome }) => outcome },
  { title: "records", of: ({ records }) => records },
  { title: "reason", of: ({ reason }) => reason },
  { title: "detail", of: ({ detail }) => detail },
];

async function retry(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, RETRY, ["SEQ...?"]);
  const selection = selectionOf(options, positionals);
  await using site = await open(io, !options.dryRun);
  const counts = { stored: 0, ready: 0, refused: 0, skipped: 0 };
  using abandon = afterGrace(io.signal);
  await pages(selection, io, async (page) => {
    const { results, cursor } = await retrySelected(site.ports, page, options.dryRun, whoAmI(), abandon.signal);
    for (const { outcome } of results) counts[outcome]++;
    if (results.length > 0) writeRows(io, RESULT_COLUMNS, results, options.json);
    return { cursor };
  });
  const done = options.dryRun ? `${counts.ready} would be tried` : `${counts.stored} stored`;
  io.err(`${done}, ${counts.refused} refused${options.dryRun ? " by this version" : ""}, ${counts.skipped} skipped\n`);
  return counts.refused + counts.skipped === 0 ? EXIT.ok : EXIT.failed;
}

/** Aborts some time after `signal`: what is under way may end. Cut short, it is settled by the next retry. */
function afterGrace(signal: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const abandon = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    timer = setTimeout(() => abandon.abort(), FINISH_MS);
  };
  signal.addEventListener("abort", stop);
  return {
    signal: abandon.signal,
    [Symbol.dispose]() {
      signal.removeEventListener("abort", stop);
      clearTimeout(timer);
    },
  };
}

async function drop(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, DROP, ["SEQ...?"]);
  const selection = selectionOf(options, positionals);
  if (options.yes === options.dryRun) throw new UsageError("a dropped letter is gone for good: say --yes, or --dry-run to see which");
  await using site = await open(io, false);
  let [count, absent] = [0, 0];
  await pages(selection, io, async (page) => {
    const dropped = await dropSelected(site.ports, page, options.dryRun, whoAmI());
    count += dropped.letters.length;
    absent += dropped.absent.length;
    if (dropped.letters.length > 0) writeRows(io, LETTER_COLUMNS, dropped.letters, options.json, shownHead);
    return dropped;
  });
  io.err(`${count} ${options.dryRun ? "would be dropped" : "dropped"}${absent > 0 ? `, ${absent} not there` : ""}\n`);
  return absent === 0 ? EXIT.ok : EXIT.failed;
}

function whoAmI(): string {
  try {
    return `user ${userInfo().username}`;
  } catch {
    // A container may run as a number that nobody has named.
    return `user ${process.getuid?.() ?? "unknown"}`;
  }
}

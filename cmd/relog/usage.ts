// `relog usage`: what tenants sent, what other limits would have done, and whether the figures are right.

import { Directory } from "../../lib/accounts/directory.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { flag, integer, oneOf, readArguments, subcommand, timeMs, word } from "../../lib/cli/args.ts";
import type { Command, Io } from "../../lib/cli/command.ts";
import { EXIT, UsageError } from "../../lib/cli/command.ts";
import { jsonLine, printableLines } from "../../lib/cli/printable.ts";
import { startProgress } from "../../lib/cli/progress.ts";
import type { Column } from "../../lib/cli/table.ts";
import { jsonOption, writeRows } from "../../lib/cli/table.ts";
import { usageStore } from "../../lib/store/usage.ts";
import type { UsagePorts } from "../../lib/usage/answer.ts";
import { usageAnswer, whatIfAnswer } from "../../lib/usage/answer.ts";
import type { UsageAnswer, WhatIfAnswer, WhatIfQuery } from "../../lib/usage/endpoints.ts";
import { canonicalZone } from "../../lib/usage/endpoints.ts";
import { formatUsageVerification } from "../../lib/usage/format.ts";
import type { ReplayedName } from "../../lib/usage/what-if.ts";
import { REPLAYED } from "../../lib/usage/what-if.ts";
import { readerInto } from "../parts/accounts.ts";
import { liveGeneration, usagePorts } from "../parts/usage.ts";
import { verifyingUsage } from "../parts/usage-verify.ts";
import { checkedTenant } from "./accounts.ts";
import { openProjection } from "./projection.ts";
import { openSite } from "./site.ts";

const SHOW = {
  by: oneOf(["hour", "day", "month"]),
  service: flag(),
  since: timeMs(),
  until: timeMs(),
  zone: word("a time zone such as Europe/Berlin"),
  ...jsonOption,
};
const WHAT_IF = { days: integer(1, 31), zone: word("a time zone such as Europe/Berlin"), ...jsonOption };
const VERIFY = {
  tenant: word("the name of a tenant"),
  since: timeMs(),
  until: timeMs(),
  rate: integer(0),
  site: word("the name of a site"),
  ...jsonOption,
};
const WHAT_IF_DAYS = 7;

export const command: Command = {
  summary: "Shows what tenants sent, replays limits over it, proves the figures.",
  usage: `show [TENANT] [--by hour|day|month] [--service] [--since TIME] [--until TIME] [--zone ZONE] [--json]
       relog usage what-if TENANT NAME=VALUE... [--days N] [--zone ZONE] [--json]
       relog usage verify [--tenant NAME] [--since TIME] [--until TIME] [--rate N] [--site NAME] [--json]

show     what each tenant, or one, sent, and what is left of its quotas
what-if  what limits would have done in the last days (7), each by itself: ${REPLAYED.join(", ")}
verify   recomputes usage from the records in archive and streams, per tenant, quarter of an hour and service, without what is
         parked, and compares it with the closed table and what the live generation counts. Changes nothing, and gives way to
         the live projection. Times that archive and streams do not hold any more are said and left out.

  --by       steps; day when it is absent
  --service  tells services apart
  --since    RFC 3339; for show 24 hours, 31 days or 12 months back, for verify 7 days
  --until    RFC 3339; now, for verify up to when usage is closed
  --zone     where days and months begin; that of the tenant's quotas when it is absent
  --rate N   records a second that are recomputed at most
  --json     one JSON object a line

Exit code 0, for verify 1 when something differs, 130 when it was stopped.`,
  async run(args, io) {
    const [name, rest] = subcommand(args, ["show", "what-if", "verify"]);
    return name === "show" ? await show(rest, io) : name === "what-if" ? await replay(rest, io) : await verify(rest, io);
  },
};

function zoneOf(given: string | undefined): { readonly zone?: string } {
  if (given === undefined) return {};
  const zone = canonicalZone(given);
  if (zone === undefined) throw new UsageError(`--zone: there is no time zone ${JSON.stringify(given)}`);
  return { zone };
}

interface Opened extends AsyncDisposable {
  readonly ports: UsagePorts;
  readonly tenants: readonly string[];
}

async function open(io: Io): Promise<Opened> {
  await using undo = new AsyncDisposableStack();
  const { nc, clickhouse, values } = undo.use(await openSite(io));
  const directory = new Directory(systemClock);
  await readerInto(nc, directory).toEnd();
  const generation = await liveGeneration(nc, values.site);
  const ports = usagePorts(usageStore(clickhouse, values.cluster), directory, () => generation);
  const tenants = directory.accounts().map(({ tenant }) => tenant);
  const owned = undo.move();
  return { ports, tenants, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

type Row = UsageAnswer["rows"][number] & { readonly tenant: string };
type Quota = UsageAnswer["quotas"][number] & { readonly tenant: string };

const ROWS: readonly Column<Row>[] = [
  { title: "tenant", of: ({ tenant }) => tenant },
  { title: "from", of: ({ from }) => from },
  { title: "to", of: ({ to }) => to },
  { title: "service", of: ({ service }) => service },
  { title: "records", of: ({ records }) => records },
  { title: "bytes", of: ({ bytes }) => bytes },
  { title: "closed", of: ({ closed }) => (closed ? "yes" : "no") },
];
const QUOTA_ROWS: readonly Column<Quota>[] = [
  { title: "tenant", of: ({ tenant }) => tenant },
  { title: "quota", of: ({ quota }) => quota },
  { title: "limit", of: ({ limit }) => limit },
  { title: "used", of: ({ used }) => used },
  { title: "left", of: ({ left }) => left },
  { title: "turns", of: ({ window }) => window.to },
  { title: "ends", of: ({ ends }) => ends },
];

async function show(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, SHOW, ["TENANT?"]);
  const { by = "day", service, since, until, json } = options;
  const one = positionals[0] === undefined ? undefined : checkedTenant(positionals[0]);
  const iso = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString());
  const query = { by, since: iso(since), until: iso(until), group: service ? ("service" as const) : undefined, ...zoneOf(options.zone) };
  await using usage = await open(io);
  const answers: UsageAnswer[] = [];
  for (const tenant of one === undefined ? usage.tenants : [one]) {
    io.signal.throwIfAborted();
    answers.push(await usageAnswer(usage.ports, tenant, query));
  }
  for (const note of new Set(answers.map(({ note }) => note))) if (note !== null) io.err(`${printableLines(note)}\n`);
  if (json) {
    for (const answer of answers) io.out(jsonLine(answer));
    return EXIT.ok;
  }
  const head = ROWS.filter(({ title }) => title !== "service" || service);
  const rows = answers.flatMap(({ tenant, rows: all }) => all.map((row) => ({ tenant, ...row })));
  writeRows(io, head, rows, false);
  const quotas = answers.flatMap(({ tenant, quotas: all }) => all.map((quota) => ({ tenant, ...quota })));
  if (quotas.length > 0) {
    io.out("\n");
    writeRows(io, QUOTA_ROWS, quotas, false);
  }
  return EXIT.ok;
}

type Over = Pick<WhatIfAnswer["limits"][number], "limit" | "value" | "at_least" | "records" | "bytes"> & {
  readonly day: string;
  readonly hit: string | null;
};
const OVER_ROWS: readonly Column<Over>[] = [
  { title: "limit", of: ({ limit }) => limit },
  { title: "value", of: ({ value }) => value },
  { title: "day", of: ({ day }) => day },
  { title: "passed", of: ({ hit }) => hit },
  { title: "records over", of: ({ records }) => records },
  { title: "bytes over", of: ({ bytes }) => bytes },
  { title: "or more", of: ({ at_least: more }) => (more ? "yes" : "no") },
];

async function replay(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, WHAT_IF, ["TENANT", "NAME=VALUE..."]);
  const [given, ...pairs] = positionals;
  const tenant = checkedTenant(given);
  const limits = Object.fromEntries(pairs.map(pairOf));
  const query: WhatIfQuery = { ...limits, days: options.days ?? WHAT_IF_DAYS, ...zoneOf(options.zone) };
  await using usage = await open(io);
  const answer = await whatIfAnswer(usage.ports, tenant, query);
  if (answer.note !== null) io.err(`${printableLines(answer.note)}\n`);
  if (options.json) io.out(jsonLine(answer));
  else {
    const rows = answer.limits.flatMap(({ days, ...limit }) =>
      days.length === 0 ? [{ ...limit, day: "none", hit: null }] : days.map((day) => ({ ...limit, ...day })),
    );
    writeRows(io, OVER_ROWS, rows, false);
  }
  return EXIT.ok;
}

function pairOf(pair: string): [ReplayedName, number] {
  const match = /^([a-z_]+)=([1-9]\d{0,14})$/.exec(pair);
  const name = REPLAYED.find((one) => one === match?.[1]);
  if (match === null || name === undefined)
    throw new UsageError(`expected NAME=VALUE with a NAME of ${REPLAYED.join(", ")}; got ${JSON.stringify(pair)}`);
  return [name, Number(match[2])];
}

async function verify(args: readonly string[], io: Io): Promise<number> {
  const { options } = readArguments(args, VERIFY);
  const { since, until, rate = 0, json } = options;
  const tenant = options.tenant === undefined ? undefined : checkedTenant(options.tenant);
  await using site = await openProjection(io, options.site);
  using shown = startProgress(io, { what: "recomputing usage", unit: "records" });
  let records = 0;
  const result = await verifyingUsage(site.parts, { sinceMs: since, untilMs: until, tenant, rate }, io.signal, (more) => {
    records += more;
    shown.set(records);
  });
  shown.end();
  io.out(json ? jsonLine(result) : printableLines(formatUsageVerification(result)));
  return result.ok ? EXIT.ok : EXIT.failed;
}

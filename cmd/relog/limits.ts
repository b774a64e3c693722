// `relog limits`: what is kept of a tenant's limits, quotas and retention.

import type { Account } from "../../lib/accounts/account.ts";
import { limits, OVER_QUOTA, quotas, retentionDays } from "../../lib/accounts/events.ts";
import { shownLimits } from "../../lib/accounts/show.ts";
import { readArguments, subcommand } from "../../lib/cli/args.ts";
import type { Command, Io } from "../../lib/cli/command.ts";
import { EXIT, UsageError } from "../../lib/cli/command.ts";
import { jsonLine } from "../../lib/cli/printable.ts";
import type { Column } from "../../lib/cli/table.ts";
import { jsonOption, writeRows } from "../../lib/cli/table.ts";
import { accountOf, checked, checkedTenant, openAccounts } from "./accounts.ts";

const [LIMITS, QUOTAS, RETENTION] = [Object.keys(limits.shape), Object.keys(quotas.shape), "retention_days"];

export const command: Command = {
  summary: "Shows and sets tenants' limits, quotas and retention.",
  usage: `show TENANT [--json]
       relog limits set TENANT NAME=VALUE... | NAME=none...

Events of the account, that every process acts on within a second.

  limits     ${LIMITS.join(", ")}
  quotas     ${QUOTAS.join(", ")}
  retention  ${RETENTION}: 0 is for ever, none what RELOG_RETENTION_DAYS says

  over_quota ${OVER_QUOTA.join(", ")}: what becomes of records beyond a quota; reject when there is none
  time_zone  such as Europe/Berlin: when days and months of quotas begin; UTC when there is none
  none       takes it away
  --json     one JSON object: limits, quotas, retention_days`,
  async run(args, io) {
    const [name, rest] = subcommand(args, ["show", "set"]);
    return name === "show" ? await show(rest, io) : await set(rest, io);
  },
};

interface Row {
  readonly name: string;
  readonly value: number | string | null | undefined;
}

const COLUMNS: readonly Column<Row>[] = [
  { title: "name", of: ({ name }) => name },
  { title: "value", of: ({ value }) => value },
];

function write(io: Io, account: Account, json: boolean): number {
  const shown = shownLimits(account);
  if (json) io.out(jsonLine(shown));
  else {
    const values: Record<string, number | string | null | undefined> = {
      ...shown.limits,
      ...shown.quotas,
      [RETENTION]: shown.retention_days,
    };
    writeRows(
      io,
      COLUMNS,
      [...LIMITS, ...QUOTAS, RETENTION].map((name) => ({ name, value: values[name] })),
      false,
    );
  }
  return EXIT.ok;
}

async function show(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, jsonOption, ["TENANT"]);
  const tenant = checkedTenant(positionals[0]);
  await using accounts = await openAccounts(io);
  return write(io, accountOf(accounts, tenant), options.json);
}

async function set(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, jsonOption, ["TENANT", "NAME=VALUE..."]);
  const [given, ...pairs] = positionals;
  const tenant = checkedTenant(given);
  const values = new Map(pairs.map((pair) => pairOf(pair, [...LIMITS, ...QUOTAS, RETENTION])));
  const of = (names: readonly string[]) => Object.fromEntries([...values].filter(([name]) => names.includes(name)));
  const command = {
    type: "set_limits",
    limits: checked(limits, of(LIMITS), "limits"),
    quotas: checked(quotas, of(QUOTAS), "quotas"),
    retentionDays: values.has(RETENTION) ? checked(retentionDays, values.get(RETENTION), RETENTION) : undefined,
  } as const;
  await using accounts = await openAccounts(io);
  return write(io, await accounts.run(tenant, command), options.json);
}

const WORDS: readonly string[] = ["over_quota", "time_zone"];

/** Reads NAME=VALUE or NAME=none, where NAME is one of `known`. @throws UsageError */
export function pairOf(pair: string, known: readonly string[]): [string, number | string | null] {
  const match = /^([a-z_]+)=(\d{1,16}|[A-Za-z][\w+/-]{0,63})$/.exec(pair);
  const isNumber = /^\d/.test(match?.[2] ?? "");
  if (match === null || !known.includes(match[1]!) || (match[2] !== "none" && isNumber === WORDS.includes(match[1]!)))
    throw new UsageError(`expected NAME=VALUE or NAME=none with a NAME of ${known.join(", ")}; got ${JSON.stringify(pair)}`);
  return [match[1]!, match[2] === "none" ? null : isNumber ? Number(match[2]) : match[2]!];
}

// `relog tenants`: who owns logs and keys here.

import type { ShownErasure, ShownTenant } from "../../lib/accounts/endpoints.ts";
import { line } from "../../lib/accounts/events.ts";
import { shownErasure, shownTenant } from "../../lib/accounts/show.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { flag, readArguments, required, subcommand, word } from "../../lib/cli/args.ts";
import type { Command, Io } from "../../lib/cli/command.ts";
import { EXIT, UsageError } from "../../lib/cli/command.ts";
import { jsonLine } from "../../lib/cli/printable.ts";
import type { Column } from "../../lib/cli/table.ts";
import { jsonOption, writeRows } from "../../lib/cli/table.ts";
import { erasuresOf } from "../parts/erasure.ts";
import { accountOf, checked, checkedTenant, openAccounts } from "./accounts.ts";

const REASON = { reason: word(), ...jsonOption };

export const command: Command = {
  summary: "Lists, makes, disables and deletes tenants.",
  usage: `list [--deleted] [--json]
       relog tenants create TENANT [--title TEXT] [--json]
       relog tenants rename TENANT --title TEXT
       relog tenants disable TENANT [--reason TEXT] | enable TENANT
       relog tenants delete TENANT --yes [--reason TEXT]
       relog tenants certificate TENANT [--json]

A tenant owns logs and keys. disable stops its keys within a second on every process, until enable. delete ends them for good, and
the name is not used again; the scheduler removes its records and then certifies what it has removed: certificate shows that, and
ends with 1 while nothing is certified yet.

  --deleted       deleted ones too
  --title TEXT    what people call it
  --reason TEXT   why, for the audit
  --yes           deletes it
  --json          one JSON object a line`,
  async run(args, io) {
    const [name, rest] = subcommand(args, ["list", "create", "rename", "disable", "enable", "delete", "certificate"]);
    if (name === "list") return await listed(rest, io);
    if (name === "certificate") return await certified(rest, io);
    return await changed(name, rest, io);
  },
};

const COLUMNS: readonly Column<ShownTenant>[] = [
  { title: "tenant", of: ({ tenant }) => tenant },
  { title: "status", of: ({ status }) => status },
  { title: "keys", of: ({ keys }) => keys },
  { title: "created", of: ({ created }) => created },
  { title: "title", of: ({ title }) => title },
  { title: "reason", of: ({ reason }) => reason },
];

async function listed(args: readonly string[], io: Io): Promise<number> {
  const { options } = readArguments(args, { deleted: flag(), ...jsonOption });
  await using accounts = await openAccounts(io);
  const all = accounts.directory.accounts().filter(({ status }) => options.deleted || status !== "deleted");
  const rows = all.map((account) => shownTenant(account, systemClock.now()));
  writeRows(io, COLUMNS, rows, options.json, (row) => row);
  return EXIT.ok;
}

const CERTIFICATE_COLUMNS: readonly Column<ShownErasure["certificates"][number]>[] = [
  { title: "site", of: ({ site }) => site },
  { title: "deleted", of: ({ deleted }) => new Date(deleted) },
  { title: "verified", of: ({ verified }) => new Date(verified) },
  { title: "tables", of: ({ tables }) => tables.length },
  { title: "rows", of: ({ rows }) => rows },
  { title: "first", of: (one) => one.first_timestamp ?? "" },
  { title: "last", of: (one) => one.last_timestamp ?? "" },
  { title: "dead letters", of: (one) => one.dead_letters },
  { title: "deferred", of: ({ deferred }) => deferred },
  { title: "left in streams", of: ({ remains }) => remains.streams.reduce((sum, { messages }) => sum + messages, 0) },
  { title: "in archive", of: ({ remains }) => remains.archive?.messages ?? 0 },
];

async function certified(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, jsonOption, ["TENANT"]);
  const tenant = checkedTenant(positionals[0]);
  await using accounts = await openAccounts(io);
  const shown = shownErasure(accountOf(accounts, tenant));
  if (options.json) io.out(jsonLine(shown));
  else if (shown.certificates.length > 0) writeRows(io, CERTIFICATE_COLUMNS, shown.certificates, false);
  if (shown.state === "removed") return EXIT.ok;
  for (const { site, phase, error } of await erasuresOf(accounts.nc, tenant))
    io.err(`site ${site}: ${phase}${error === null ? "" : `: ${error}`}\n`);
  io.err(`tenant ${tenant} is deleted; nothing is certified yet\n`);
  return EXIT.failed;
}

type Change = "create" | "rename" | "disable" | "enable" | "delete";

async function changed(name: Change, args: readonly string[], io: Io): Promise<number> {
  const { tenant, command, json } = read(name, args);
  await using accounts = await openAccounts(io);
  const account = await accounts.run(tenant, command);
  if (json) io.out(jsonLine(shownTenant(account, systemClock.now())));
  else io.err(`tenant ${tenant} is ${account.status}\n`);
  return EXIT.ok;
}

function read(name: Change, args: readonly string[]) {
  const text = (given: string | undefined, option: string): string => checked(line(), given ?? "", option);
  switch (name) {
    case "create":
    case "rename": {
      const title = name === "rename" ? required(word()) : word();
      const { options, positionals } = readArguments(args, { title, ...jsonOption }, ["TENANT"]);
      const command = { type: `${name}_tenant`, title: text(options.title, "--title") } as const;
      return { tenant: checkedTenant(positionals[0]), command, json: options.json };
    }
    case "enable": {
      const { options, positionals } = readArguments(args, jsonOption, ["TENANT"]);
      return { tenant: checkedTenant(positionals[0]), command: { type: "enable_tenant" } as const, json: options.json };
    }
    case "disable":
    case "delete": {
      const { options, positionals } = readArguments(args, { ...REASON, yes: flag() }, ["TENANT"]);
      if (name === "delete" && !options.yes) throw new UsageError("deleting a tenant ends its keys for good: say --yes");
      const command = { type: `${name}_tenant`, reason: text(options.reason, "--reason") } as const;
      return { tenant: checkedTenant(positionals[0]), command, json: options.json };
    }
    default:
      return name satisfies never;
  }
}

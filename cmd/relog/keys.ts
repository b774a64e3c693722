// `relog keys`: a tenant's API keys.

import type { Account } from "../../lib/accounts/account.ts";
import { KEYS_MAX } from "../../lib/accounts/decider.ts";
import type { ShownKey } from "../../lib/accounts/endpoints.ts";
import { GRACE_S_DEFAULT } from "../../lib/accounts/endpoints.ts";
import { keyId, keyLimits, line, scopes } from "../../lib/accounts/events.ts";
import type { NewKey } from "../../lib/accounts/keys.ts";
import { newKey } from "../../lib/accounts/keys.ts";
import { LastUse } from "../../lib/accounts/last-use.ts";
import { shownKey } from "../../lib/accounts/show.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { SCOPES } from "../../lib/base/principal.ts";
import { durationMs, fallback, flag, list, oneOf, readArguments, subcommand, timeMs, word } from "../../lib/cli/args.ts";
import type { Command, Io } from "../../lib/cli/command.ts";
import { EXIT, UsageError } from "../../lib/cli/command.ts";
import { jsonLine } from "../../lib/cli/printable.ts";
import type { Column } from "../../lib/cli/table.ts";
import { jsonOption, writeRows } from "../../lib/cli/table.ts";
import { lastUsePorts } from "../parts/accounts.ts";
import { accountOf, checked, checkedTenant, openAccounts } from "./accounts.ts";
import { pairOf } from "./limits.ts";

const LIMITS = Object.keys(keyLimits.shape);
const EXPIRY = { expires: timeMs(), expiresIn: durationMs() };

export const command: Command = {
  summary: "Lists, makes, rotates and revokes API keys.",
  usage: `list TENANT [--json]
       relog keys create TENANT --scope NAME... [--label TEXT] [--expires TIME | --expires-in TIME] [--operator] [--json]
       relog keys rotate TENANT KEY [--grace TIME] [--json]
       relog keys change TENANT KEY [--label TEXT] [--expires TIME | --expires-in TIME | --never]
       relog keys limit TENANT KEY [NAME=VALUE... | NAME=none...]
       relog keys revoke TENANT KEY [--reason TEXT]

create and rotate print the key on stdout: it is shown this once, only its SHA-256 is kept. rotate makes a successor with the same
rights; both live for the grace, then the old one expires. revoke ends a key for good, within a second on every process. KEY is
an id, as list prints it. limit holds one key to less than its tenant, shows its limits as JSON, and none takes a limit away:
${LIMITS.join(", ")}. A tenant has at most ${KEYS_MAX} keys that are not revoked.

  --scope NAME       ${SCOPES.join(", ")}; may be given several times
  --label TEXT       what it is for
  --expires TIME     RFC 3339
  --expires-in TIME  such as 90d
  --never            does not expire
  --operator         may also run the installation: tenants, other tenants' keys, the scheduler
  --grace TIME       such as 1h; 0 revokes the old key at once (${GRACE_S_DEFAULT / 3_600}h)
  --reason TEXT      why, for the audit
  --json             JSON objects: of a new key with its id, label, scopes and expiry`,
  async run(args, io) {
    const [name, rest] = subcommand(args, ["list", "create", "rotate", "change", "limit", "revoke"]);
    switch (name) {
      case "list":
        return await listed(rest, io);
      case "create":
        return await created(rest, io);
      case "rotate":
        return await rotated(rest, io);
      case "change":
        return await changed(rest, io);
      case "limit":
        return await limited(rest, io);
      case "revoke":
        return await revoked(rest, io);
      default:
        return name satisfies never;
    }
  },
};

const COLUMNS: readonly Column<ShownKey>[] = [
  { title: "key", of: ({ id }) => id },
  { title: "state", of: ({ state }) => state },
  { title: "scopes", of: (key) => [...key.scopes, ...(key.operator ? ["operator"] : [])].join(",") },
  { title: "created", of: ({ created }) => created },
  { title: "expires", of: ({ expires }) => expires },
  { title: "last_used", of: ({ last_used }) => last_used },
  { title: "label", of: ({ label }) => label },
];

async function listed(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, jsonOption, ["TENANT"]);
  const tenant = checkedTenant(positionals[0]);
  await using accounts = await openAccounts(io);
  const keys = [...accountOf(accounts, tenant).keys.values()].reverse();
  const used = await new LastUse(lastUsePorts(accounts.nc), systemClock, "").of(keys.map(({ id }) => id));
  const rows = keys.map((key) => shownKey(key, systemClock.now(), used.get(key.id)));
  writeRows(io, COLUMNS, rows, options.json, (row) => row);
  return EXIT.ok;
}

interface Expiry {
  readonly expires: number | undefined;
  readonly expiresIn: number | undefined;
}

function expiryOf({ expires, expiresIn }: Expiry, never = false): number | undefined | null {
  if ([expires !== undefined, expiresIn !== undefined, never].filter(Boolean).length > 1)
    throw new UsageError("give one of --expires, --expires-in and --never");
  if (never) return null;
  return expiresIn === undefined ? expires : systemClock.now() + expiresIn;
}

/** The key alone on stdout, so that it can be piped to where it is needed. */
function announce(io: Io, account: Account, made: NewKey, json: boolean): number {
  const shown = shownKey(account.keys.get(made.id)!, systemClock.now(), undefined);
  if (json) io.out(jsonLine({ ...shown, key: made.key }));
  else {
    io.out(`${made.key}\n`);
    io.err(
      `key ${made.id} of tenant ${account.tenant}${shown.expires === null ? "" : `, until ${shown.expires}`}; it is shown this once\n`,
    );
  }
  return EXIT.ok;
}

async function created(args: readonly string[], io: Io): Promise<number> {
  const declared = { scope: list(oneOf(SCOPES)), label: fallback(word(), ""), ...EXPIRY, operator: flag(), ...jsonOption };
  const { options, positionals } = readArguments(args, declared, ["TENANT"]);
  const tenant = checkedTenant(positionals[0]);
  if (options.scope.length === 0) throw new UsageError(`--scope: it must be given, as ${SCOPES.join(", ")}`);
  const facts = {
    label: checked(line(), options.label, "--label"),
    scopes: checked(scopes, options.scope, "--scope"),
    operator: options.operator,
  };
  const expiresMs = expiryOf(options) ?? null;
  await using accounts = await openAccounts(io);
  const made = newKey();
  const account = await accounts.run(tenant, { type: "create_key", key: made.id, hash: made.hash, expiresMs, ...facts });
  return announce(io, account, made, options.json);
}

async function rotated(args: readonly string[], io: Io): Promise<number> {
  const declared = { grace: fallback(durationMs(), GRACE_S_DEFAULT * 1_000), ...jsonOption };
  const { options, positionals } = readArguments(args, declared, ["TENANT", "KEY"]);
  const [tenant, key] = [checkedTenant(positionals[0]), checked(keyId, positionals[1], "KEY")];
  await using accounts = await openAccounts(io);
  const made = newKey();
  const account = await accounts.run(tenant, { type: "rotate_key", key, next: made.id, hash: made.hash, graceMs: options.grace });
  return announce(io, account, made, options.json);
}

async function changed(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, { label: word(), ...EXPIRY, never: flag() }, ["TENANT", "KEY"]);
  const [tenant, key] = [checkedTenant(positionals[0]), checked(keyId, positionals[1], "KEY")];
  const label = options.label === undefined ? undefined : checked(line(), options.label, "--label");
  const expiresMs = expiryOf(options, options.never);
  if (label === undefined && expiresMs === undefined) throw new UsageError("give --label, --expires, --expires-in or --never");
  await using accounts = await openAccounts(io);
  await accounts.run(tenant, { type: "change_key", key, label, expiresMs });
  io.err(`key ${key} of tenant ${tenant} is changed\n`);
  return EXIT.ok;
}

async function limited(args: readonly string[], io: Io): Promise<number> {
  const { positionals } = readArguments(args, {}, ["TENANT", "KEY", "NAME=VALUE...?"]);
  const [tenant, key] = [checkedTenant(positionals[0]), checked(keyId, positionals[1], "KEY")];
  const pairs = positionals.slice(2).map((pair) => pairOf(pair, LIMITS));
  const limits = checked(keyLimits, Object.fromEntries(pairs), "limits");
  await using accounts = await openAccounts(io);
  const account = await accounts.run(tenant, { type: "limit_key", key, limits });
  io.out(jsonLine(account.keys.get(key)!.limits));
  return EXIT.ok;
}

async function revoked(args: readonly string[], io: Io): Promise<number> {
  const { options, positionals } = readArguments(args, { reason: fallback(word(), "") }, ["TENANT", "KEY"]);
  const [tenant, key] = [checkedTenant(positionals[0]), checked(keyId, positionals[1], "KEY")];
  const reason = checked(line(), options.reason, "--reason");
  await using accounts = await openAccounts(io);
  await accounts.run(tenant, { type: "revoke_key", key, reason });
  io.err(`key ${key} of tenant ${tenant} is revoked\n`);
  return EXIT.ok;
}

// `relog deferred list`: what waits until a quota has room.

import { readArguments, subcommand } from "../../lib/cli/args.ts";
import type { Command } from "../../lib/cli/command.ts";
import { EXIT } from "../../lib/cli/command.ts";
import type { Column } from "../../lib/cli/table.ts";
import { jsonOption, writeRows } from "../../lib/cli/table.ts";
import { deferredByTenant, nextDeferred } from "../../lib/streams/deferred.ts";
import { openSite } from "./site.ts";

interface Row {
  readonly tenant: string;
  readonly messages: number;
  /** RFC 3339; empty when the last one was released while it was looked at. */
  readonly oldest: string;
  readonly until: string;
}

const COLUMNS: readonly Column<Row>[] = [
  { title: "tenant", of: ({ tenant }) => tenant },
  { title: "messages", of: ({ messages }) => String(messages) },
  { title: "oldest", of: ({ oldest }) => oldest },
  { title: "until", of: ({ until }) => until },
];

export const command: Command = {
  summary: "Lists the tenants whose records wait until their quota has room.",
  usage: `list [--json]

For each tenant: messages in the stream DEFERRED, when the oldest came, and until when it waits (RELOG_DEFER_GRACE). They are stored
as soon as the quota has room, or was raised; what waited too long leaves a gap record in the tenant's log.

  --json   one JSON object a line`,
  async run(args, io) {
    const [, rest] = subcommand(args, ["list"]);
    const { options } = readArguments(rest, jsonOption);
    await using site = await openSite(io, { asksClickHouse: false });
    const rows: Row[] = [];
    for (const [tenant, messages] of [...(await deferredByTenant(site.nc))].sort(([a], [b]) => a.localeCompare(b))) {
      const oldest = await nextDeferred(site.nc, tenant, 1);
      const time = (ms: number): string => (oldest === undefined ? "" : new Date(oldest.storedMs + ms).toISOString());
      rows.push({ tenant, messages, oldest: time(0), until: time(site.values.deferGraceMs) });
    }
    writeRows(io, COLUMNS, rows, options.json, (row) => row);
    return EXIT.ok;
  },
};

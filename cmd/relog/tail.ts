// `relog tail`: records as they come, over HTTP from the query service.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { readSettings, text } from "../../lib/base/config.ts";
import { devKeySettings } from "../../lib/base/dev-key.ts";
import { integer, list, readArguments, word } from "../../lib/cli/args.ts";
import type { Command, Io } from "../../lib/cli/command.ts";
import { EXIT, UsageError } from "../../lib/cli/command.ts";
import { harmlessJson, printable } from "../../lib/cli/printable.ts";
import { jsonOption } from "../../lib/cli/table.ts";
import { readTail } from "../../lib/tail/client.ts";
import { shownNote, shownRecord } from "../../lib/tail/show.ts";
import { siteEnvironment } from "./site.ts";

const tailCommandSettings = {
  queryUrl: text("RELOG_QUERY_URL", undefined, "the query service that `relog tail` asks; the running stack of `npm start` says its own"),
  key: devKeySettings.key,
};

const FILTERS = { service: word(), level: word(), host: word(), contains: word(), since: word("a time or a duration") };
const OPTIONS = { ...FILTERS, attribute: list(word("NAME=VALUE")), limit: integer(1), ...jsonOption };

export const command: Command = {
  summary: "Shows records as they are acknowledged.",
  usage: `[filters] [--since TIME] [--limit N] [--json]

Asks the query service at RELOG_QUERY_URL with the key RELOG_KEY, or that of the running stack of \`npm start\`. Ends with Ctrl-C. A
connection that breaks is made again where it stood.

filters, all of which must hold:
  --service NAME          of this service
  --level LEVEL           of this level and worse: trace, debug, info, warn, error, fatal
  --host NAME             from this host
  --contains TEXT         the message holds this, in any letter case
  --attribute NAME=VALUE  with this attribute; may be given several times

  --since TIME            first what was stored since then: 10m, or an RFC 3339 time
  --limit N               at most N a second; what is skipped is said
  --json                  one JSON object a line, as GET /v1/tail sends it`,
  async run(args, io) {
    const { options } = readArguments(args, OPTIONS);
    const parameters = parametersOf(options);
    const { queryUrl, key } = await settingsOf(io);
    const say = (sentence: string): void => io.err(`relog: ${printable(sentence)}\n`);
    const onWait = (why: string): void => say(`${why}; connecting again`);
    for await (const event of readTail(queryUrl, key, parameters, onWait, io.signal)) {
      if (event.event !== "message") say(shownNote(event));
      else if (options.json) io.out(`${harmlessJson(event.data)}\n`);
      else io.out(`${shownRecord(event.data, printable, io.terminal)}\n`);
      await written(io.signal);
    }
    return EXIT.stopped;
  },
};

/** Waits for whoever reads the output: the service skips for a slow reader, memory here stays small. */
async function written(signal: AbortSignal): Promise<void> {
  if (!process.stdout.writableNeedDrain || signal.aborted) return;
  await once(process.stdout, "drain", { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

type Given = Readonly<Record<keyof typeof FILTERS, string | undefined>> & {
  readonly attribute: readonly string[];
  readonly limit: number | undefined;
};

function parametersOf({ attribute, limit, ...filters }: Given): URLSearchParams {
  const parameters = new URLSearchParams();
  for (const name of Object.keys(FILTERS) as (keyof typeof FILTERS)[]) {
    const value = filters[name];
    if (value !== undefined) parameters.append(name, value);
  }
  for (const pair of attribute) {
    const at = pair.indexOf("=");
    if (at < 1) throw new UsageError(`--attribute: expected NAME=VALUE, got ${printable(JSON.stringify(pair))}`);
    parameters.append(`attribute.${pair.slice(0, at)}`, pair.slice(at + 1));
  }
  if (limit !== undefined) parameters.append("limit_per_second", String(limit));
  return parameters;
}

async function settingsOf(io: Io): Promise<{ queryUrl: string; key: string }> {
  const env = io.env.RELOG_QUERY_URL === undefined ? await siteEnvironment(io) : io.env;
  const { queryUrl, key } = readSettings(tailCommandSettings, env, (path) => readFileSync(path, "utf8"));
  if (!URL.canParse(queryUrl)) throw new Error(`RELOG_QUERY_URL is no URL: ${queryUrl}`);
  if (key === "") throw new Error("RELOG_KEY is not set: `relog tail` needs a key with the scope query");
  return { queryUrl, key };
}

// `relog`: the command line. Composition only; each command is a file of cmd/relog, and lib/cli is what they have in common.
//
// The first Ctrl-C or SIGTERM asks the command to stop, the second ends it with 130.

import { systemClock } from "../lib/base/clock.ts";
import type { Commands, Io } from "../lib/cli/command.ts";
import { EXIT, runCommands } from "../lib/cli/command.ts";
import { onSignals } from "../lib/cli/signals.ts";
import { command as archive } from "./relog/archive.ts";
import { command as audit } from "./relog/audit.ts";
import { command as checkConfig } from "./relog/check-config.ts";
import { command as dead } from "./relog/dead.ts";
import { command as deferred } from "./relog/deferred.ts";
import { command as generations } from "./relog/generations.ts";
import { command as keys } from "./relog/keys.ts";
import { command as limits } from "./relog/limits.ts";
import { command as natsAuth } from "./relog/nats-auth.ts";
import { command as rebuild } from "./relog/rebuild.ts";
import { command as rehydrate } from "./relog/rehydrate.ts";
import { command as tail } from "./relog/tail.ts";
import { command as tenants } from "./relog/tenants.ts";
import { command as usage } from "./relog/usage.ts";
import { command as verify } from "./relog/verify.ts";
import { command as version } from "./relog/version.ts";

/** In the order of `relog help`. */
const COMMANDS: Commands = {
  tail,
  rebuild,
  generations,
  rehydrate,
  verify,
  dead,
  deferred,
  archive,
  tenants,
  keys,
  limits,
  usage,
  audit,
  "nats-auth": natsAuth,
  "check-config": checkConfig,
  version,
};

const stop = new AbortController();
const arrived = onSignals(
  systemClock,
  () => {
    process.stderr.write("relog: stopping; once more ends it at once\n");
    stop.abort();
  },
  () => process.exit(EXIT.stopped),
);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, arrived);
// Whoever reads the output may have seen enough.
let readerLeft = false;
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", () => {
    readerLeft = true;
    stop.abort();
  });
}

const io: Io = {
  out: (text) => !readerLeft && process.stdout.write(text),
  err: (text) => !readerLeft && process.stderr.write(text),
  terminal: process.stdout.isTTY === true && process.stderr.isTTY === true,
  get columns() {
    return process.stdout.columns || undefined;
  },
  env: process.env,
  signal: stop.signal,
};

const code = await runCommands(COMMANDS, process.argv.slice(2), io);
// process.exit does not wait for a pipe that is slow to be read.
await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write("", done))));
process.exit(code);

// `npm run bench`: what relog costs, how fast it is, and whether that is what we mean to reach. docs/BENCHMARKS.md explains it.
//
// Promises: each measure has a stack of its own on free ports; nothing is left behind but the results; exits 1 when
// something breaks, 0 when a target is only missed.

import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { codec } from "./codec.ts";
import type { Floor } from "./floor.ts";
import { floor } from "./floor.ts";
import type { BenchOptions } from "./options.ts";
import { HELP, readOptions } from "./options.ts";
import { queries } from "./queries.ts";
import { rebuild } from "./rebuild.ts";
import { reportText } from "./report.ts";
import { engineVersions } from "./stage.ts";
import { steady } from "./steady.ts";
import type { Results } from "./targets.ts";
import { targetsOf } from "./targets.ts";
import { tenants } from "./tenants.ts";
import type { WholePath } from "./whole-path.ts";
import { wholePath } from "./whole-path.ts";

const FLOOR_PLAN_RECORDS = 100_000;

async function run(options: BenchOptions): Promise<Results> {
  const { env } = process;
  const has = (part: BenchOptions["only"][number]): boolean => options.only.includes(part);
  const wholes: WholePath[] = [];
  const floors: Floor[] = [];
  for (let round = 1; round <= options.rounds; round++) {
    if (has("A")) wholes.push(await told(`A whole path, run ${round} of ${options.rounds}`, () => wholePath(options, env)));
    const plans = wholes.at(-1)?.plans ?? [FLOOR_PLAN_RECORDS];
    if (has("B")) floors.push(await told(`B floor, run ${round} of ${options.rounds}`, () => floor(options, env, plans)));
  }
  return {
    ...(has("A") ? { wholePath: wholes } : {}),
    ...(has("B") ? { floor: floors } : {}),
    ...(has("C") ? { steady: await told("C steady rate", () => steady(options, env)) } : {}),
    ...(has("D") ? { queries: await told("D queries", () => queries(options, env)) } : {}),
    ...(has("E") ? { codec: await told("E codec", () => codec(options)) } : {}),
    ...(has("F") ? { rebuild: await told("F rebuild", () => rebuild(options, env)) } : {}),
    ...(has("G") ? { tenants: await told("G tenants", () => tenants(options, env)) } : {}),
  };
}

async function told<T>(what: string, work: () => Promise<T>): Promise<T> {
  const begin = performance.now();
  process.stderr.write(`bench: ${what} ...`);
  const done = await work();
  process.stderr.write(` ${((performance.now() - begin) / 1_000).toFixed(0)} s\n`);
  return done;
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  if (options === "help") return console.log(HELP);
  const about = {
    date: new Date().toISOString(),
    node: process.version,
    ...(await engineVersions(process.env)),
    cores: availableParallelism(),
    options,
  };
  const results = await run(options);
  const targets = targetsOf(results);
  console.log(`\nrelog bench, ${about.date}, node ${about.node}, ClickHouse ${about.clickhouse}, ${about.nats}, ${about.cores} cores\n`);
  console.log(reportText(results, targets));
  mkdirSync(dirname(options.out), { recursive: true });
  writeFileSync(options.out, `${JSON.stringify({ ...about, targets, ...results }, undefined, 2)}\n`);
  console.log(`\nwritten to ${options.out}`);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));
try {
  await main();
} catch (error) {
  console.error(`\nbench: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  process.exitCode = 1;
}

// Asks the registry whether a locked package has a known hole: `node cmd/bootstrap.mjs test/audit/main.ts`.
//
// Promises: fails on a hole of level high or worse and on an answer that is not understood; where the registry does not offer
// audits, or cannot be reached, it says so and passes. Takes TIME_MAX_MS at most.

import { spawnSync } from "node:child_process";
import { verdictOf } from "./verdict.ts";

const TIME_MAX_MS = 20_000;
const ARGS = ["audit", "--audit-level=high", "--json", "--package-lock-only", "--fetch-retries=0", "--fetch-timeout=15000"];

const { stdout, status, error } = spawnSync("npm", ARGS, { encoding: "utf8", timeout: TIME_MAX_MS, stdio: ["ignore", "pipe", "ignore"] });
const late = (error as NodeJS.ErrnoException | undefined)?.code === "ETIMEDOUT";
if (error !== undefined && !late) throw error;
const verdict = late ? ({ kind: "unasked", why: `no answer within ${TIME_MAX_MS} ms` } as const) : verdictOf(stdout, status);
switch (verdict.kind) {
  case "clean":
    process.stdout.write("npm audit: no package has a known hole of level high or worse\n");
    break;
  case "unasked":
    process.stdout.write(`npm audit: NOT ASKED, the registry does not offer it or cannot be reached: ${verdict.why}\n`);
    break;
  case "found":
    process.stdout.write(`npm audit: holes of level high or worse in ${verdict.packages.join(", ")}\n`);
    process.exitCode = 1;
    break;
  case "failed":
    process.stdout.write(`npm audit: ${verdict.why}\n`);
    process.exitCode = 1;
    break;
  default:
    verdict satisfies never;
}

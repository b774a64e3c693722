// The stack of `npm start`, found by whoever wants to talk to its engines.
//
// Promises: a stack counts as running only while it answers; engines that the environment names are never mixed with others.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Environment } from "../base/config.ts";
import type { Secrets } from "./folder.ts";
import { archiveFolder, engineEnvironment } from "./settings.ts";
import type { Contract } from "./steps.ts";

const ANSWER_MS = 2_000;

/** The environment of the running stack of a folder; undefined when there is none, or when `env` names an engine that is not its. */
export async function localStack(dir: string, env: Environment): Promise<Environment | undefined> {
  if (env.NATS_URL !== undefined && env.CLICKHOUSE_URL !== undefined) return undefined;
  let contract: Contract;
  let secrets: Secrets;
  try {
    contract = JSON.parse(readFileSync(join(dir, "dev.json"), "utf8")) as Contract;
    secrets = JSON.parse(readFileSync(join(dir, "secrets.json"), "utf8")) as Secrets;
  } catch {
    return undefined;
  }
  if ((env.NATS_URL ?? contract.natsUrl) !== contract.natsUrl) return undefined;
  if ((env.CLICKHOUSE_URL ?? contract.clickhouse.url) !== contract.clickhouse.url) return undefined;
  // After kill -9 dev.json is still there.
  const answer = await fetch(`${contract.ingestUrl}/healthz`, { signal: AbortSignal.timeout(ANSWER_MS) }).catch(() => undefined);
  await answer?.body?.cancel();
  if (answer?.ok !== true) return undefined;
  const embedded = { nats: env.NATS_URL === undefined, clickhouse: env.CLICKHOUSE_URL === undefined };
  return {
    RELOG_QUERY_URL: contract.queryUrl,
    RELOG_KEY: contract.key,
    RELOG_TENANT: contract.tenant,
    RELOG_ARCHIVE: archiveFolder(dir),
    ...env,
    ...engineEnvironment(contract, secrets, embedded),
  };
}

// The settings of `npm start`, and the environment that its services get.
//
// Promises: an engine whose URL is given is not started, and its own credentials are used, never the generated ones; what the
// services are told about an embedded engine cannot be contradicted by the environment.

import { join, resolve } from "node:path";
import type { Environment, Values } from "../base/config.ts";
import { integer, secret, text } from "../base/config.ts";
import type { Secrets } from "./folder.ts";
import type { ServiceName } from "./service.ts";
import { portSetting } from "./service.ts";
import type { Contract } from "./steps.ts";

const port = (name: string, fallback: string, why: string) => integer(name, fallback, [1, 65_535], "port", why);

export const devSettings = {
  dir: text("RELOG_DIR", ".relog", "where data, secrets and logs are kept"),
  tenant: text("RELOG_TENANT", "default", "the installation's own tenant, which the bootstrap key belongs to"),
  key: secret(
    "RELOG_KEY",
    "",
    "the bootstrap API key, an operator's; empty: `npm start` takes the one of its folder, elsewhere the query service makes one and logs it once",
  ),
  gateway: port("RELOG_GATEWAY_PORT", "8080", "ingest"),
  query: port("RELOG_QUERY_PORT", "8081", "query and viewer"),
  projector: port("RELOG_PROJECTOR_PORT", "8082", "health and metrics"),
  scheduler: port("RELOG_SCHEDULER_PORT", "8083", "health, metrics and operators' requests"),
  nats: port("RELOG_NATS_PORT", "4222", "the embedded nats-server"),
  clickhouseHttp: port("RELOG_CLICKHOUSE_HTTP_PORT", "8123", "the embedded ClickHouse"),
  clickhouseTcp: port("RELOG_CLICKHOUSE_TCP_PORT", "9000", "the embedded ClickHouse, native protocol"),
  natsUrl: text("NATS_URL", "", "an existing NATS with JetStream, used instead of the embedded one"),
  clickhouseUrl: text("CLICKHOUSE_URL", "", "an existing ClickHouse with the users of ops/clickhouse, used instead of the embedded one"),
  clickhouseUser: text("CLICKHOUSE_USER", "relog", "the user of that ClickHouse"),
  clickhousePassword: secret("CLICKHOUSE_PASSWORD", "", "its password"),
};
export type DevSettings = Values<typeof devSettings>;

/** Started in this order, stopped in reverse. */
export const SERVICES: readonly ServiceName[] = ["projector", "scheduler", "query", "gateway"];

/** Every port that this start will listen on, with the setting that moves it. */
export function portsOf(own: DevSettings): { port: number; setting: string }[] {
  return [
    ...(own.natsUrl ? [] : [{ port: own.nats, setting: "RELOG_NATS_PORT" }]),
    ...(own.clickhouseUrl ? [] : [{ port: own.clickhouseHttp, setting: "RELOG_CLICKHOUSE_HTTP_PORT" }]),
    ...(own.clickhouseUrl ? [] : [{ port: own.clickhouseTcp, setting: "RELOG_CLICKHOUSE_TCP_PORT" }]),
    ...SERVICES.map((name) => ({ port: own[name as "gateway"], setting: portSetting(name) })),
  ];
}

/** What dev.json says. */
export function contractOf(own: DevSettings, secrets: Secrets): Contract {
  const embedded = { url: `http://127.0.0.1:${own.clickhouseHttp}`, user: "relog", password: secrets.clickhousePassword };
  const given = { url: own.clickhouseUrl, user: own.clickhouseUser, password: own.clickhousePassword };
  return {
    ingestUrl: `http://127.0.0.1:${own.gateway}`,
    queryUrl: `http://127.0.0.1:${own.query}`,
    natsUrl: own.natsUrl || `nats://127.0.0.1:${own.nats}`,
    tenant: own.tenant,
    key: own.key || secrets.key,
    clickhouse: own.clickhouseUrl ? given : embedded,
  };
}

/** How the engines of a stack are reached; those that are not its own are left out. */
export function engineEnvironment(contract: Contract, secrets: Secrets, own: { nats: boolean; clickhouse: boolean }): Environment {
  const { url, user, password } = contract.clickhouse;
  return {
    ...(own.nats ? { NATS_URL: contract.natsUrl, NATS_USER: "relog", NATS_PASSWORD: secrets.natsPassword } : {}),
    ...(own.clickhouse
      ? {
          CLICKHOUSE_URL: url,
          CLICKHOUSE_USER: user,
          CLICKHOUSE_PASSWORD: password,
          CLICKHOUSE_READER_USER: "reader",
          CLICKHOUSE_READER_PASSWORD: secrets.readerPassword,
        }
      : {}),
  };
}

/** What only a gateway needs of the embedded NATS: it answers for producers' keys, and ends the connections of ended ones. */
function gatewayEnvironment(own: DevSettings, secrets: Secrets): Environment {
  if (own.natsUrl !== "") return {};
  const { natsCalloutSeed: NATS_CALLOUT_SEED, natsSystemPassword: NATS_SYSTEM_PASSWORD } = secrets;
  return { NATS_CALLOUT_SEED, NATS_SYSTEM_USER: "relog_system", NATS_SYSTEM_PASSWORD };
}

/** Secrets that a service does not read, and so does not get. */
const WITHOUT: Readonly<Record<ServiceName, readonly string[]>> = {
  gateway: ["CLICKHOUSE_PASSWORD", "CLICKHOUSE_READER_PASSWORD"],
  query: ["NATS_CALLOUT_SEED", "NATS_SYSTEM_PASSWORD"],
  projector: ["RELOG_KEY", "CLICKHOUSE_READER_PASSWORD", "NATS_CALLOUT_SEED", "NATS_SYSTEM_PASSWORD"],
  scheduler: ["CLICKHOUSE_READER_PASSWORD", "NATS_CALLOUT_SEED", "NATS_SYSTEM_PASSWORD"],
};

/** Where a stack keeps sealed segments unless the environment says otherwise. */
export function archiveFolder(dir: string): string {
  return join(resolve(dir), "archive");
}

/** The environment of a service: this process's own, with what the embedded engines need and without others' secrets. */
export function serviceEnvironment(
  name: ServiceName,
  own: DevSettings,
  secrets: Secrets,
  contract: Contract,
  env: Environment,
): Environment {
  const all: Environment = {
    RELOG_SHARDS: "2",
    RELOG_REPLICAS: "1",
    RELOG_ARCHIVE: archiveFolder(own.dir),
    ...env,
    RELOG_KEY: contract.key,
    RELOG_TENANT: own.tenant,
    ...engineEnvironment(contract, secrets, { nats: own.natsUrl === "", clickhouse: own.clickhouseUrl === "" }),
    ...(name === "gateway" ? gatewayEnvironment(own, secrets) : {}),
  };
  return Object.fromEntries(Object.entries(all).filter(([setting]) => !WITHOUT[name].includes(setting)));
}

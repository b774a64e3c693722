// `npm start`: the whole of relog on embedded engines under .relog/. Composition only; the parts are in lib/devstack.
//
// Promises: ports are checked before anything starts; dev.json is there only while the stack is ready, and is removed at the
// stop (after SIGKILL it stays: readers check that ingestUrl answers); children are restarted, and die with this process.

import { createWriteStream, existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { integer, readSettings, text } from "../lib/base/config.ts";
import { messageOf } from "../lib/base/errors.ts";
import type { ChildOptions } from "../lib/devstack/child.ts";
import { clickhouseChild, clickhouseReady } from "../lib/devstack/clickhouse.ts";
import { keepSecrets, lockFolder, writeAtomically } from "../lib/devstack/folder.ts";
import { findNatsServer } from "../lib/devstack/nats-find.ts";
import { natsChildren, natsReady } from "../lib/devstack/nats-server.ts";
import { OwnLogs } from "../lib/devstack/own-logs.ts";
import { freePort, requireFreePorts } from "../lib/devstack/ports.ts";
import type { ServiceName } from "../lib/devstack/service.ts";
import { portSetting, serviceChild, serviceReady } from "../lib/devstack/service.ts";

const env = process.env;
const PORTS = [1, 65_535] as const;
const port = (name: string, fallback: string, why: string) => integer(name, fallback, PORTS, "port", why);
const settings = {
  dir: text("RELOG_DIR", ".relog", "where data, secrets and logs are kept"),
  tenant: text("RELOG_TENANT", "default", "the tenant of the generated key"),
  gateway: port("RELOG_GATEWAY_PORT", "8080", "ingest"),
  query: port("RELOG_QUERY_PORT", "8081", "query and viewer"),
  projector: port("RELOG_PROJECTOR_PORT", "8082", "health and metrics"),
  nats: port("RELOG_NATS_PORT", "4222", "the embedded nats-server"),
  http: port("RELOG_CLICKHOUSE_HTTP_PORT", "8123", "the embedded ClickHouse"),
  tcp: port("RELOG_CLICKHOUSE_TCP_PORT", "9000", "the embedded ClickHouse, native protocol"),
};

async function start(stack: AsyncDisposableStack): Promise<void> {
  const own = readSettings(settings, env, () => "");
  const dir = resolve(own.dir);
  stack.use(lockFolder(dir));
  const engines = [
    ...(env.NATS_URL ? [] : [{ port: own.nats, setting: "RELOG_NATS_PORT" }]),
    ...(env.CLICKHOUSE_URL
      ? []
      : [
          { port: own.http, setting: "RELOG_CLICKHOUSE_HTTP_PORT" },
          { port: own.tcp, setting: "RELOG_CLICKHOUSE_TCP_PORT" },
        ]),
  ];
  const names: ServiceName[] = ["projector", "query", "gateway"];
  await requireFreePorts([...engines, ...names.map((name) => ({ port: own[name], setting: portSetting(name) }))]);
  const made = keepSecrets(dir);
  const secrets = { ...made, key: env.RELOG_KEY ?? made.key };
  const ingestUrl = `http://127.0.0.1:${own.gateway}`;
  const queryUrl = `http://127.0.0.1:${own.query}`;
  const logs = new OwnLogs(ingestUrl, secrets.key);
  mkdirSync(join(dir, "logs"), { recursive: true });
  const say = (message: string): void => {
    console.log(`relog: ${message}`);
    logs.add("dev", message);
  };
  function hooks(name: string): Required<Pick<ChildOptions, "onLine" | "onDeath">> {
    const path = join(dir, "logs", `${name}.log`);
    if (existsSync(path)) renameSync(path, `${path}.1`);
    const file = createWriteStream(path, { mode: 0o600 });
    return {
      onLine(line) {
        file.write(`${line}\n`);
        logs.add(name, line);
      },
      onDeath: (exit, ms) => say(`${name} died (${exit.signal ?? `exit ${exit.code}`}); restarting in ${ms} ms; its log: ${path}`),
    };
  }
  const clickhouse = { url: env.CLICKHOUSE_URL ?? `http://127.0.0.1:${own.http}`, user: env.CLICKHOUSE_USER ?? "relog" };
  const password = env.CLICKHOUSE_PASSWORD ?? secrets.clickhousePassword;
  const natsUrl = env.NATS_URL ?? `nats://127.0.0.1:${own.nats}`;
  const startNats = async (): Promise<void> => {
    const ports = [{ client: own.nats, monitor: await freePort(), route: await freePort() }];
    const options = { binary: await findNatsServer(env, say), dir: join(dir, "nats"), password: secrets.natsPassword, ports };
    const children = await natsChildren(options, hooks("nats"));
    for (const child of children) stack.use(child).start();
    await natsReady(children, ports);
    say(`nats-server is ready at ${natsUrl}`);
  };
  const startClickhouse = async (): Promise<void> => {
    const options = {
      dir: join(dir, "clickhouse"),
      httpPort: own.http,
      tcpPort: own.tcp,
      password,
      readerPassword: secrets.readerPassword,
    };
    const child = stack.use(await clickhouseChild(options, env, hooks("clickhouse")));
    child.start();
    await clickhouseReady(child, clickhouse.url);
    say(`ClickHouse is ready at ${clickhouse.url}`);
  };
  await Promise.all([env.NATS_URL ? undefined : startNats(), env.CLICKHOUSE_URL ? undefined : startClickhouse()]);
  const serviceEnv = {
    RELOG_SHARDS: "2",
    RELOG_REPLICAS: "1",
    CLICKHOUSE_READER_USER: "reader",
    CLICKHOUSE_READER_PASSWORD: secrets.readerPassword,
    NATS_USER: "relog",
    NATS_PASSWORD: secrets.natsPassword,
    ...env,
    NATS_URL: natsUrl,
    RELOG_KEY: secrets.key,
    RELOG_TENANT: own.tenant,
    CLICKHOUSE_URL: clickhouse.url,
    CLICKHOUSE_USER: clickhouse.user,
    CLICKHOUSE_PASSWORD: password,
  };
  const services = names.map((name) => stack.use(serviceChild(name, own[name], serviceEnv, hooks(name))));
  for (const child of services) child.start();
  await Promise.all(
    services.map((child, i) => serviceReady(child, `http://127.0.0.1:${own[names[i]!]}`).then(() => say(`${child.name} is ready`))),
  );
  stack.use(logs);
  const devJson = join(dir, "dev.json");
  const contract = { ingestUrl, queryUrl, natsUrl, tenant: own.tenant, key: secrets.key, clickhouse: { ...clickhouse, password } };
  writeAtomically(devJson, `${JSON.stringify(contract)}\n`);
  stack.defer(() => rmSync(devJson, { force: true }));
  const auth = `-H 'Authorization: Bearer ${secrets.key}'`;
  console.log(`\n  ingest ${ingestUrl}\n  query  ${queryUrl}\n  NATS   ${natsUrl}\n  key    ${secrets.key}\n
  curl ${auth} ${ingestUrl}/v1/ingest -H 'Content-Type: application/x-ndjson' -d '{"level":"info","message":"hello"}'
  curl ${auth} ${queryUrl}/v1/query -H 'Content-Type: text/plain' -d 'SELECT time, level, message FROM logs ORDER BY time DESC LIMIT 5'
  curl ${auth} ${queryUrl}/v1/receipts/<id from the first answer>\n`);
}

const stop = new Promise<string>((done) => ["SIGINT", "SIGTERM", "SIGHUP"].map((signal) => process.on(signal, () => done(signal))));
const stack = new AsyncDisposableStack();
const failed = await Promise.race([start(stack).then(() => stop), stop]).then(() => undefined, messageOf);
if (failed !== undefined) console.error(`relog: cannot start: ${failed}`);
await stack.disposeAsync();
process.exit(failed === undefined ? 0 : 1);

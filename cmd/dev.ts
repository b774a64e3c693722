// `npm start`: the whole of relog on embedded engines under .relog/. Composition only; the parts are in lib/devstack.
//
// Promises: ports are checked before anything starts; dev.json is there only while the stack is ready, and is removed at the
// stop (after SIGKILL it stays until the next start: readers check that ingestUrl answers); children are restarted, and die
// with this process; the stop goes in reverse order of the start.

import { readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { readSettings } from "../lib/base/config.ts";
import { messageOf } from "../lib/base/errors.ts";
import type { Child } from "../lib/devstack/child.ts";
import { clickhouseChild, clickhouseReady } from "../lib/devstack/clickhouse.ts";
import type { Secrets } from "../lib/devstack/folder.ts";
import { keepSecrets, lockFolder, writeAtomically } from "../lib/devstack/folder.ts";
import { findNatsServer } from "../lib/devstack/nats-find.ts";
import { natsChildren, natsReady } from "../lib/devstack/nats-server.ts";
import type { Output } from "../lib/devstack/output.ts";
import { devOutput } from "../lib/devstack/output.ts";
import { OwnLogs } from "../lib/devstack/own-logs.ts";
import { freePort, requireFreePorts } from "../lib/devstack/ports.ts";
import { serviceChild, serviceReady } from "../lib/devstack/service.ts";
import type { DevSettings } from "../lib/devstack/settings.ts";
import { contractOf, devSettings, portsOf, SERVICES, serviceEnvironment } from "../lib/devstack/settings.ts";
import type { Contract, Say } from "../lib/devstack/steps.ts";
import { step, welcome } from "../lib/devstack/steps.ts";

const env = process.env;
const stack = new AsyncDisposableStack();
let say: Say = (message) => console.log(`relog: ${message}`);

interface Parts {
  readonly own: DevSettings;
  readonly dir: string;
  readonly secrets: Secrets;
  readonly contract: Contract;
  readonly logs: OwnLogs;
  readonly hooks: Output["hooks"];
}

async function prepare(): Promise<Parts> {
  const own = readSettings(devSettings, env, (path) => readFileSync(path, "utf8"));
  const dir = resolve(own.dir);
  stack.use(lockFolder(dir));
  rmSync(join(dir, "dev.json"), { force: true });
  await requireFreePorts(portsOf(own));
  const secrets = keepSecrets(dir);
  const contract = contractOf(own, secrets);
  const logs = new OwnLogs(contract.ingestUrl, contract.key);
  const output = stack.use(devOutput(dir, logs, say));
  say = output.say;
  return { own, dir, secrets, contract, logs, hooks: output.hooks };
}

/** From now on it is stopped with the stack. */
function keep(child: Child): Child {
  stack.defer(async () => {
    const exit = await child.stop();
    say(`stopped ${child.name}${exit.signal === "SIGKILL" ? " by force" : ""}`);
  });
  return child;
}

async function startNats({ own, dir, secrets, contract, hooks }: Parts): Promise<string> {
  const ports = [{ client: own.nats, monitor: await freePort(), route: await freePort() }];
  const abort = new AbortController();
  const finding = findNatsServer(env, say, undefined, abort.signal);
  stack.defer(async () => {
    abort.abort();
    await Promise.allSettled([finding]);
  });
  const { natsPassword: password, natsSystemPassword: systemPassword, natsCalloutSeed: calloutSeed } = secrets;
  const options = { binary: await finding, dir: join(dir, "nats"), password, systemPassword, calloutSeed, ports };
  const children = await natsChildren(options, hooks("nats"));
  for (const child of children) keep(child).start();
  await natsReady(children, ports);
  return `ready at ${contract.natsUrl}`;
}

async function startClickhouse({ own, dir, secrets, contract, hooks }: Parts): Promise<string> {
  const passwords = { password: secrets.clickhousePassword, readerPassword: secrets.readerPassword };
  const options = { dir: join(dir, "clickhouse"), httpPort: own.clickhouseHttp, tcpPort: own.clickhouseTcp, ...passwords };
  const child = keep(await clickhouseChild(options, env, hooks("clickhouse")));
  child.start();
  await clickhouseReady(child, contract.clickhouse.url);
  return `ready at ${contract.clickhouse.url}`;
}

async function start(): Promise<void> {
  const parts = await prepare();
  const { own, dir, contract, secrets, logs, hooks } = parts;
  const engines = [
    own.natsUrl ? say(`using NATS at ${own.natsUrl}`) : step(say, "nats-server", () => startNats(parts)),
    own.clickhouseUrl ? say(`using ClickHouse at ${own.clickhouseUrl}`) : step(say, "ClickHouse", () => startClickhouse(parts)),
  ];
  await Promise.all(engines);
  const services = SERVICES.map((name) => ({
    name,
    child: keep(serviceChild(name, own[name], serviceEnvironment(name, own, secrets, contract, env), hooks(name))),
  }));
  for (const { child } of services) child.start();
  const ready = services.map(({ name, child }) =>
    step(say, name, async () => {
      await serviceReady(child, `http://127.0.0.1:${own[name]}`);
      return `ready at http://127.0.0.1:${own[name]}`;
    }),
  );
  await Promise.all(ready);
  const devJson = join(dir, "dev.json");
  writeAtomically(devJson, `${JSON.stringify(contract)}\n`);
  stack.defer(() => rmSync(devJson, { force: true }));
  // First to stop: what was logged so far is sent while there is a gateway; later lines are in the files.
  stack.use(logs);
  console.log(welcome(contract, dir));
}

const stop = new Promise<string>((done) => ["SIGINT", "SIGTERM", "SIGHUP"].map((signal) => process.on(signal, () => done(signal))));
// Whoever read this process's output may leave before it does.
process.stdout.on("error", () => undefined);
const failed = await Promise.race([start().then(() => stop), stop]).then((signal) => say(`${signal}: stopping`), messageOf);
if (failed !== undefined) console.error(`relog: cannot start: ${failed}`);
await stack.disposeAsync();
process.exit(failed === undefined ? 0 : 1);

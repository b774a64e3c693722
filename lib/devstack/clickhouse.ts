// ClickHouse as a child: `clickhouse server` when the PATH has one, else the engine from npm. Settings come from ops/clickhouse.
//
// Promises: no secret in its environment; passwords reach it as SHA-256 in a file of mode 0600; it dies with this process.

import { createHash } from "node:crypto";
import { access, constants, copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { totalmem } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Environment } from "../base/config.ts";
import { waitFor } from "../base/loop.ts";
import type { ChildOptions } from "./child.ts";
import { Child } from "./child.ts";

const OPS = fileURLToPath(new URL("../../ops/clickhouse/", import.meta.url));
const CHILD = fileURLToPath(new URL("./clickhouse-child.ts", import.meta.url));
const GIB = 2 ** 30;
const PACKAGE = `@chdb/lib-${process.platform}-${process.arch}${process.platform === "linux" ? "-gnu" : ""}`;
// The last statement reads stdin, which stays open. '-' and not /dev/stdin: Node's pipe is a socket, which cannot be opened by path.
const SERVE = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT * FROM file('-', LineAsString) FORMAT Null";

export interface ClickhouseOptions {
  readonly dir: string;
  readonly httpPort: number;
  readonly tcpPort: number;
  readonly password: string;
  readonly readerPassword: string;
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** A quarter of the machine, at least 1 GiB, at most 8: it shares the machine with the rest of the stack. */
function memoryBytes(machineBytes = totalmem()): number {
  return Math.floor(Math.min(8 * GIB, Math.max(GIB, machineBytes / 4)));
}

async function binaryOnPath(env: Environment): Promise<string | undefined> {
  for (const folder of (env.PATH ?? "").split(delimiter).filter((part) => part !== "")) {
    const path = join(folder, "clickhouse");
    const found = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return path;
  }
  return undefined;
}

// The session that runs SERVE is `default` from loopback without a password: clickhouse-local has no other. It may have one
// session, and SERVE's lasts as long as the engine, so nobody else gets in as `default`. A real server does not need this user.
const EMBEDDED_PROFILE = "<embedded><max_sessions_for_user>1</max_sessions_for_user></embedded>";
const EMBEDDED_DEFAULT = `<default><password></password><networks><ip>127.0.0.1</ip></networks><profile>embedded</profile><quota>default</quota>
  <grants><query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT CREATE TEMPORARY TABLE ON *.*</query><query>GRANT FILE ON *.*</query></grants></default>`;

async function writeConfig(options: ClickhouseOptions, server: boolean): Promise<string> {
  const { dir, httpPort, tcpPort } = options;
  for (const folder of ["config.d", "users.d", "data"]) await mkdir(join(dir, folder), { recursive: true, mode: 0o700 });
  await copyFile(join(OPS, "config.d/relog.xml"), join(dir, "config.d/relog.xml"));
  const users = (await readFile(join(OPS, "users.d/relog.xml"), "utf8"))
    .replace(/ from_env="RELOG_CLICKHOUSE_PASSWORD_SHA256"\/>/, `>${sha256(options.password)}</password_sha256_hex>`)
    .replace(/ from_env="RELOG_CLICKHOUSE_READER_PASSWORD_SHA256"\/>/, `>${sha256(options.readerPassword)}</password_sha256_hex>`);
  await writeFile(join(dir, "users.d/relog.xml"), users, { mode: 0o600 });
  const own = server
    ? `<listen_host>127.0.0.1</listen_host><http_port>${httpPort}</http_port><tcp_port>${tcpPort}</tcp_port><path>${dir}/data/</path>`
    : "";
  const memory = `<max_server_memory_usage>${memoryBytes()}</max_server_memory_usage>`;
  await writeFile(join(dir, "config.xml"), `<clickhouse><users_config>${dir}/users.xml</users_config>${memory}${own}</clickhouse>\n`);
  const [profile, user] = server ? ["", ""] : [EMBEDDED_PROFILE, EMBEDDED_DEFAULT];
  const content = `<profiles><default/>${profile}</profiles><quotas><default/></quotas><users>${user}</users>`;
  await writeFile(join(dir, "users.xml"), `<clickhouse>${content}</clickhouse>\n`, { mode: 0o600 });
  return join(dir, "config.xml");
}

/** The child, not started. @throws Error that says what to install when there is no engine */
export async function clickhouseChild(
  options: ClickhouseOptions,
  env: Environment,
  hooks: Pick<ChildOptions, "onLine" | "onDeath"> = {},
): Promise<Child> {
  const binary = await binaryOnPath(env);
  const file = await writeConfig(options, binary !== undefined);
  const common = { env: { PATH: env.PATH, TZ: "UTC" }, cwd: options.dir, ...hooks };
  if (binary) return new Child("clickhouse", { command: binary, args: ["server", "--config-file", file], ...common });
  const require = createRequire(import.meta.url);
  let library: string;
  try {
    require.resolve("ffi-rs");
    library = dirname(require.resolve(`${PACKAGE}/package.json`));
  } catch (error) {
    throw new Error(`no ClickHouse: put "clickhouse" on the PATH, set CLICKHOUSE_URL, or npm install ${PACKAGE} ffi-rs`, { cause: error });
  }
  const listen = ["--listen_host=127.0.0.1", `--http_port=${options.httpPort}`, `--tcp_port=${options.tcpPort}`];
  const local = ["clickhouse-local", "--path", join(options.dir, "data"), "--config-file", file, "--log-level=warning", ...listen];
  return new Child("clickhouse", {
    command: process.execPath,
    args: [CHILD, library, ...local, "--multiquery", "--query", SERVE],
    ...common,
  });
}

export async function clickhouseReady(child: Child, url: string): Promise<void> {
  await waitFor(`ClickHouse at ${url}`, async () => {
    if (!child.running) throw new Error(`${child.name} has ended:\n${child.lastLines.slice(-20).join("\n")}`);
    const answer = await fetch(`${url}/ping`).catch(() => undefined);
    return answer?.ok ? true : undefined;
  });
}

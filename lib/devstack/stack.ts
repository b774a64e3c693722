// Real engines for tests: `await using stack = await startStack({ env: process.env })`. Free ports, a temp folder, gone afterwards.

import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Environment } from "../base/config.ts";
import { newAccountSeed } from "../streams/nkey.ts";
import type { Child } from "./child.ts";
import { clickhouseChild, clickhouseReady } from "./clickhouse.ts";
import { findNatsServer } from "./nats-find.ts";
import type { NatsPorts } from "./nats-server.ts";
import { natsChildren, natsReady } from "./nats-server.ts";
import { freePort } from "./ports.ts";

export interface StackOptions {
  /** Where to look for engines (PATH, NATS_SERVER, caches); services get its PATH. */
  readonly env: Environment;
  readonly natsNodes?: 1 | 3;
  /** Kept when given; else a temp folder, removed at the end. */
  readonly dir?: string;
  readonly clickhouse?: boolean;
  readonly maxFileStoreBytes?: number;
}

export interface Stack extends AsyncDisposable {
  readonly dir: string;
  readonly natsUrl: string;
  readonly natsUser: string;
  readonly natsPassword: string;
  readonly nats: readonly Child[];
  /** Undefined without ClickHouse. */
  readonly clickhouse:
    | { url: string; user: string; password: string; readerUser: string; readerPassword: string; child: Child }
    | undefined;
  /** Waits until every engine answers, for use after start() of a killed one. */
  ready(): Promise<void>;
  serviceEnv(): Record<string, string>;
}

const password = (): string => `p${randomBytes(16).toString("hex")}`;

export async function startStack(options: StackOptions): Promise<Stack> {
  const nodes = options.natsNodes ?? 1;
  await using undo = new AsyncDisposableStack();
  const dir = options.dir ?? (await mkdtemp(join(tmpdir(), "relog-stack-")));
  if (options.dir === undefined) undo.defer(() => rm(dir, { recursive: true, force: true }));
  const [natsPassword, systemPassword, calloutSeed] = [password(), password(), newAccountSeed()];
  const ports: NatsPorts[] = [];
  for (let i = 0; i < nodes; i++) ports.push({ client: await freePort(), monitor: await freePort(), route: await freePort() });
  const binary = await findNatsServer(options.env);
  const store = { maxFileStoreBytes: options.maxFileStoreBytes };
  const nats = await natsChildren({ binary, dir: join(dir, "nats"), password: natsPassword, systemPassword, calloutSeed, ports, ...store });
  let clickhouse: Stack["clickhouse"];
  if (options.clickhouse ?? true) {
    const secrets = { password: password(), readerPassword: password() };
    const [httpPort, tcpPort] = [await freePort(), await freePort()];
    const child = await clickhouseChild({ dir: join(dir, "clickhouse"), httpPort, tcpPort, ...secrets }, options.env);
    clickhouse = { url: `http://127.0.0.1:${httpPort}`, user: "relog", readerUser: "reader", ...secrets, child };
  }
  for (const child of clickhouse ? [...nats, clickhouse.child] : nats) undo.use(child).start();
  const ready = async (): Promise<void> => {
    await Promise.all([natsReady(nats, ports), clickhouse && clickhouseReady(clickhouse.child, clickhouse.url)]);
  };
  await ready();
  const key = `relog_dev_${randomBytes(16).toString("hex")}`;
  const natsUrl = ports.map(({ client }) => `nats://127.0.0.1:${client}`).join(",");
  const owned = undo.move();
  return {
    dir,
    natsUrl,
    natsUser: "relog",
    natsPassword,
    nats,
    clickhouse,
    ready,
    serviceEnv: () => ({
      PATH: options.env.PATH ?? "",
      ...(options.env.NODE_COMPILE_CACHE !== undefined && { NODE_COMPILE_CACHE: options.env.NODE_COMPILE_CACHE }),
      NATS_URL: natsUrl,
      NATS_USER: "relog",
      NATS_PASSWORD: natsPassword,
      NATS_CALLOUT_SEED: calloutSeed,
      NATS_SYSTEM_PASSWORD: systemPassword,
      ...(clickhouse && {
        CLICKHOUSE_URL: clickhouse.url,
        CLICKHOUSE_USER: clickhouse.user,
        CLICKHOUSE_PASSWORD: clickhouse.password,
        CLICKHOUSE_READER_USER: clickhouse.readerUser,
        CLICKHOUSE_READER_PASSWORD: clickhouse.readerPassword,
      }),
      RELOG_KEY: key,
      RELOG_TENANT: "default",
      RELOG_SHARDS: "2",
      RELOG_REPLICAS: String(nodes),
      RELOG_LISTEN_HOST: "127.0.0.1",
    }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

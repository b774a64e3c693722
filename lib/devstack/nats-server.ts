// nats-server as a child: one node, or three with routes, one availability zone each. Settings come from ops/nats.

import { existsSync } from "node:fs";
import { mkdir, rename, statfs, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { waitFor } from "../base/loop.ts";
import { accountSigner } from "../streams/nkey.ts";
import type { ChildOptions } from "./child.ts";
import { Child } from "./child.ts";

const OPS = fileURLToPath(new URL("../../ops/nats/", import.meta.url));
const STORE_SHARE_OF_FREE_DISK = 0.5;
/** The streams' max_bytes are reserved in it (topology.ts: 2 x 4 GiB and 1 GiB), whether or not the disk is larger. */
const STORE_BYTES_MIN = 12 * 2 ** 30;

export interface NatsPorts {
  readonly client: number;
  readonly monitor: number;
  readonly route: number;
}

export interface NatsOptions {
  readonly binary: string;
  readonly dir: string;
  readonly password: string;
  readonly systemPassword: string;
  /** Seed of the account that signs for producers: the gateways'. */
  readonly calloutSeed: string;
  /** One entry a node. */
  readonly ports: readonly NatsPorts[];
  readonly maxFileStoreBytes?: number;
}

function config(options: NatsOptions, index: number, dir: string, storeBytes: number): string {
  const { client, monitor, route } = options.ports[index]!;
  const ops = relative(dir, OPS);
  const routes = options.ports.map((ports) => `"nats://127.0.0.1:${ports.route}"`).join(", ");
  const cluster = `cluster { name: relog, listen: "127.0.0.1:${route}", routes: [${routes}] }\n`;
  return `server_name: "n${index + 1}"
server_tags: ["az:${index + 1}"]
listen: "127.0.0.1:${client}"
http: "127.0.0.1:${monitor}"
include "${ops}/limits.conf"
jetstream {
  store_dir: "${dir}/jetstream"
  max_memory_store: 64MB
  max_file_store: ${storeBytes}
  include "${ops}/jetstream.conf"
}
include "${ops}/accounts.conf"
${options.ports.length > 1 ? cluster : ""}`;
}

/**
 * Streams lie below their account's name. Those of a folder that was made while services and producers shared the server's own account
 * go with the services.
 * @throws Error when there are streams of both: which of them count cannot be known
 */
async function moveStreams(storeDir: string): Promise<void> {
  const [before, now] = ["$G", "RELOG"].map((account) => join(storeDir, "jetstream", account)) as [string, string];
  if (!existsSync(before)) return;
  if (existsSync(now)) throw new Error(`${before} and ${now} both hold streams; move one of them out of the folder and start again`);
  await rename(before, now);
}

/** Children for all nodes, not started. */
export async function natsChildren(options: NatsOptions, hooks: Pick<ChildOptions, "onLine" | "onDeath"> = {}): Promise<Child[]> {
  await mkdir(options.dir, { recursive: true });
  const disk = await statfs(options.dir);
  const share = (disk.bavail * disk.bsize * STORE_SHARE_OF_FREE_DISK) / options.ports.length;
  const storeBytes = options.maxFileStoreBytes ?? Math.max(STORE_BYTES_MIN, Math.floor(share));
  const issuer = accountSigner(options.calloutSeed)?.publicKey;
  if (issuer === undefined) throw new Error("the callout's seed is none of an account");
  const children: Child[] = [];
  for (const index of options.ports.keys()) {
    const dir = join(options.dir, `n${index + 1}`);
    await mkdir(dir, { recursive: true });
    const file = join(dir, "nats.conf");
    if (options.ports.length === 1) await moveStreams(join(dir, "jetstream"));
    await writeFile(file, config(options, index, dir, storeBytes));
    const env = {
      RELOG_NATS_PASSWORD: options.password,
      RELOG_NATS_SYSTEM_PASSWORD: options.systemPassword,
      RELOG_NATS_CALLOUT_ISSUER: issuer,
    };
    children.push(new Child(`nats-${index + 1}`, { command: options.binary, args: ["-c", file], env, ...hooks }));
  }
  return children;
}

/**
 * Waits until every node takes connections and JetStream's requests, with a leader when there are several. The monitor answers
 * some milliseconds before clients may connect, which only /healthz tells.
 */
export async function natsReady(children: readonly Child[], ports: readonly NatsPorts[]): Promise<void> {
  await Promise.all(
    ports.map(({ monitor }, index) =>
      waitFor(`nats-server ${index + 1}`, async () => {
        const child = children[index]!;
        if (!child.running) throw new Error(`${child.name} has ended:\n${child.lastLines.slice(-20).join("\n")}`);
        const [health, answer] = await Promise.all(
          ["healthz?js-enabled-only=true", "jsz"].map((path) => fetch(`http://127.0.0.1:${monitor}/${path}`).catch(() => undefined)),
        );
        if (!health?.ok || !answer?.ok) return undefined;
        const state = (await answer.json()) as { disabled?: boolean; meta_cluster?: { leader?: string; cluster_size?: number } };
        if (state.disabled) return undefined;
        const formed = state.meta_cluster?.leader && state.meta_cluster.cluster_size === ports.length;
        return ports.length === 1 || formed ? true : undefined;
      }),
    ),
  );
}

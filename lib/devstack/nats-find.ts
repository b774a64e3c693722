// Finds a nats-server that is new enough, or fetches one into the cache.
//
// Order: NATS_SERVER, the PATH, the cache, Debian's sid package through a private apt configuration that leaves the system's
// sources alone, the upstream release with its SHA-256 checked. What failed on the way is in the one error at the end.
// Concurrent fetchers work in folders of their own and rename the finished binary into place.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, chmod, constants, mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import type { Environment } from "../base/config.ts";
import { messageOf } from "../base/errors.ts";
import type { Say } from "./steps.ts";

const run = promisify(execFile);
const VERSION = "2.15.1";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const FETCH_TIMEOUT_MS = 120_000;

function cacheFolder(env: Environment): string {
  return env.RELOG_CACHE_DIR || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "relog");
}

export function newEnough(version: string, least = VERSION): boolean {
  const [a, b] = [version, least].map((text) => text.split(".").map(Number));
  for (let i = 0; i < 3; i++) {
    if (a![i] !== b![i]) return (a![i] ?? 0) > b![i]!;
  }
  return true;
}

/** @throws Error unless `path` runs and says a version that is new enough */
async function check(path: string): Promise<string> {
  await access(path, constants.X_OK);
  const { stdout } = await run(path, ["--version"], { timeout: 10_000 });
  const version = /v(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  if (version === undefined || !newEnough(version))
    throw new Error(`${path} is ${version ?? "of unknown version"}, need ${VERSION} or later`);
  return path;
}

async function onPath(env: Environment): Promise<string> {
  const faults: string[] = [];
  for (const folder of (env.PATH ?? "").split(delimiter).filter((part) => part !== "")) {
    const path = join(folder, "nats-server");
    try {
      return await check(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") faults.push(messageOf(error));
    }
  }
  throw new Error(faults.join("; ") || "not there");
}

/** The Debian mirror of this machine, from its own apt sources (both formats; apt reads them). */
export function debianMirror(targets: string): string | undefined {
  return targets
    .split("\n")
    .map((line) => line.trim())
    .find((uri) => /^https?:\/\/\S+\/debian\/?$/.test(uri));
}

async function fromDebian(work: string, signal?: AbortSignal): Promise<string> {
  await access(KEYRING);
  const { stdout } = await run("apt-get", ["indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"], {
    signal,
  });
  const mirror = debianMirror(stdout);
  if (mirror === undefined) throw new Error("apt's sources name no Debian mirror");
  for (const folder of ["lists/partial", "cache/archives/partial"]) await mkdir(join(work, folder), { recursive: true });
  await writeFile(join(work, "status"), "");
  await writeFile(join(work, "sources.list"), `deb [signed-by=${KEYRING}] ${mirror} sid main\n`);
  const settings = { "Dir::State::Lists": `${work}/lists`, "Dir::State::Status": `${work}/status`, "Dir::Cache": `${work}/cache` };
  const sources = { "Dir::Etc::SourceList": `${work}/sources.list`, "Dir::Etc::SourceParts": "/dev/null", "APT::Sandbox::User": "" };
  const all = { ...settings, ...sources, "Acquire::Languages": "none" };
  await writeFile(
    join(work, "apt.conf"),
    Object.entries(all)
      .map(([key, value]) => `${key} "${value}";\n`)
      .join(""),
  );
  const options = {
    cwd: work,
    timeout: FETCH_TIMEOUT_MS,
    signal,
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", APT_CONFIG: join(work, "apt.conf") },
  };
  await run("apt-get", ["-q", "update"], options);
  await run("apt-get", ["-q", "download", "nats-server"], options);
  const deb = (await readdir(work)).find((name) => name.endsWith(".deb"));
  if (deb === undefined) throw new Error("apt-get downloaded nothing");
  await run("dpkg", ["-x", join(work, deb), join(work, "x")], { signal });
  return join(work, "x/usr/sbin/nats-server");
}

async function download(url: string, stop?: AbortSignal): Promise<Buffer> {
  const signal = AbortSignal.any([AbortSignal.timeout(FETCH_TIMEOUT_MS), ...(stop ? [stop] : [])]);
  const answer = await fetch(url, { signal });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
  return Buffer.from(await answer.arrayBuffer());
}

async function fromUpstream(work: string, signal?: AbortSignal): Promise<string> {
  const name = `nats-server-v${VERSION}-${process.platform}-${process.arch === "x64" ? "amd64" : process.arch}`;
  const base = `https://github.com/nats-io/nats-server/releases/download/v${VERSION}`;
  const sums = (await download(`${base}/SHA256SUMS`, signal)).toString();
  const wanted = sums
    .split("\n")
    .find((line) => line.trim().endsWith(`${name}.tar.gz`))
    ?.split(/\s+/)[0];
  const archive = await download(`${base}/${name}.tar.gz`, signal);
  if (createHash("sha256").update(archive).digest("hex") !== wanted) throw new Error(`${name}.tar.gz does not match SHA256SUMS`);
  await writeFile(join(work, "archive.tar.gz"), archive);
  await run("tar", ["-xzf", "archive.tar.gz"], { cwd: work });
  return join(work, name, "nats-server");
}

async function fetched(cache: string, get: Fetcher[1], signal?: AbortSignal): Promise<string> {
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, "fetch-"));
  try {
    const binary = await get(work, signal);
    await chmod(binary, 0o755);
    await check(binary);
    const path = join(cache, `nats-server-${VERSION}`);
    await rename(binary, path);
    return path;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Ways to get one when none is there: a name, and what puts a binary into the folder `work` and returns its path. */
export type Fetcher = readonly [from: string, get: (work: string, signal?: AbortSignal) => Promise<string>];
const FETCHERS: readonly Fetcher[] = [
  ["Debian sid", fromDebian],
  ["its GitHub release", fromUpstream],
];

/** The path of a nats-server. Aborting ends a fetch and leaves nothing behind. @throws Error with every way that failed, and what to install by hand */
export async function findNatsServer(
  env: Environment,
  say: Say = () => undefined,
  fetchers = FETCHERS,
  signal?: AbortSignal,
): Promise<string> {
  if (env.NATS_SERVER) return await check(env.NATS_SERVER);
  const cache = cacheFolder(env);
  const ways: [string, () => Promise<string>][] = [
    ["PATH", () => onPath(env)],
    [`cache ${cache}`, () => check(join(cache, `nats-server-${VERSION}`))],
    ...fetchers.map(([from, get]): [string, () => Promise<string>] => [
      from,
      () => {
        say(`fetching nats-server from ${from} (once) ...`);
        return fetched(cache, get, signal);
      },
    ]),
  ];
  const faults: string[] = [];
  for (const [way, find] of ways) {
    signal?.throwIfAborted();
    try {
      return await find();
    } catch (error) {
      faults.push(`${way}: ${messageOf(error)}`);
    }
  }
  throw new Error(`no nats-server ${VERSION} or later; install one and set NATS_SERVER to its path. Tried:\n  ${faults.join("\n  ")}`);
}

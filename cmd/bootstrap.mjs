// Makes `npm start` and `npm test` work on a fresh clone with nothing but an old Node and npm.
//
// Promises: installs the locked packages when they are missing or stale; runs the given program on Node >= 24, fetching
// that Node from npm into the user's cache when this one is older; passes signals and the exit code through; ends its
// child when it is itself abandoned. Node keeps what it compiled beside the packages (NODE_COMPILE_CACHE, unless it is set),
// which halves the start of every process. Plain JavaScript that Node 14 can run: it is the one file that an old Node sees.
//
// usage: node cmd/bootstrap.mjs [--env NAME=VALUE]... (FILE | --bin PACKAGE_BINARY) [ARGUMENT]...

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const NODE_MAJOR_MIN = 24;
const NODE_VERSION = "24.21.0";
const ABANDONED_CHECK_MS = 500;
const LOCK_CHECK_MS = 200;
const root = dirname(dirname(fileURLToPath(import.meta.url)));

function fail(message) {
  process.stderr.write(`relog: ${message}\n`);
  process.exit(1);
}

/** Runs npm with its output on stderr, so that stdout stays the program's own. */
function npm(args, cwd) {
  const viaNode = process.env.npm_execpath?.endsWith(".js");
  const command = viaNode ? process.execPath : "npm";
  const all = viaNode ? [process.env.npm_execpath, ...args] : args;
  // A parent npm exports its own settings; --omit and friends given to it must not change what is installed here.
  const result = spawnSync(command, all, { cwd, stdio: ["ignore", 2, 2] });
  if (result.error) fail(`cannot run npm (${result.error.message}). Install npm 7 or later and try again.`);
  return result.status === 0;
}

function installPackages() {
  const lock = readFileSync(join(root, "package-lock.json"));
  const wanted = createHash("sha256").update(lock).digest("hex");
  const stamp = join(root, "node_modules", ".relog-lock-sha256");
  const installed = () => existsSync(stamp) && readFileSync(stamp, "utf8") === wanted;
  if (installed()) return;
  // Two installs into one folder destroy each other's work: the second one waits for the first.
  const unlock = lockInstall(installed);
  if (unlock === undefined) return;
  process.stderr.write("relog: installing packages (once; about 700 MB unpacked, ClickHouse included) ...\n");
  const flags = ["--no-audit", "--no-fund", "--loglevel=error", "--include=dev", "--include=optional"];
  if (!npm(["ci", ...flags], root)) fail("npm ci failed (its message is above). Fix that and run the command again.");
  writeFileSync(stamp, wanted);
  unlock();
}

/** Takes the install lock. Returns how to give it back, or undefined when another install has done the work meanwhile. */
function lockInstall(installed) {
  const lock = join(root, ".relog-install.lock");
  for (let said = false; ; ) {
    try {
      writeFileSync(lock, String(process.pid), { flag: "wx" });
      if (!installed()) {
        const unlock = () => rmSync(lock, { force: true });
        process.on("exit", unlock);
        return unlock;
      }
      rmSync(lock, { force: true });
      return undefined;
    } catch (error) {
      if (error.code !== "EEXIST") fail(`cannot write ${lock}: ${error.message}`);
    }
    const owner = existsSync(lock) ? Number(readFileSync(lock, "utf8")) : 0;
    if (owner > 0 && !isRunning(owner)) {
      // Whoever took it was killed.
      rmSync(lock, { force: true });
      continue;
    }
    if (!said) process.stderr.write(`relog: process ${owner} installs the packages; waiting for it ...\n`);
    said = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_CHECK_MS);
  }
}

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Returns the path of a Node that is new enough: this one, or one from npm kept in the user's cache. */
function suitableNode() {
  if (Number(process.versions.node.split(".")[0]) >= NODE_MAJOR_MIN) return process.execPath;
  const cache = process.env.RELOG_CACHE_DIR || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "relog");
  const packageName = `node-${process.platform}-${process.arch}`;
  const folder = join(cache, `node-${NODE_VERSION}-${process.platform}-${process.arch}`);
  const binary = join(folder, "node_modules", packageName, "bin", "node");
  if (existsSync(binary)) return binary;
  process.stderr.write(`relog: this is Node ${process.versions.node}; fetching Node ${NODE_VERSION} from npm (once) ...\n`);
  const partial = `${folder}.partial-${process.pid}`;
  mkdirSync(partial, { recursive: true });
  writeFileSync(join(partial, "package.json"), '{"private":true}\n');
  const flags = ["--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
  if (!npm(["install", ...flags, `${packageName}@${NODE_VERSION}`], partial)) {
    rmSync(partial, { recursive: true, force: true });
    fail(`could not fetch ${packageName}@${NODE_VERSION}. Install Node ${NODE_MAJOR_MIN} or later yourself and try again.`);
  }
  try {
    renameSync(partial, folder);
  } catch (error) {
    // Another start may have been faster; its copy is as good.
    rmSync(partial, { recursive: true, force: true });
    if (!existsSync(binary)) throw error;
  }
  return binary;
}

/** The parent of a process where Linux tells, else undefined. */
function parentOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
  } catch {
    return undefined;
  }
}

function run() {
  const args = process.argv.slice(2);
  const env = Object.assign({}, process.env);
  while (args[0] === "--env") {
    const [name, value] = args[1].split("=");
    env[name] = value;
    args.splice(0, 2);
  }
  installPackages();
  const node = suitableNode();
  env.PATH = dirname(node) + delimiter + env.PATH;
  if (env.NODE_COMPILE_CACHE === undefined) env.NODE_COMPILE_CACHE = join(root, "node_modules", ".cache", "node-compile");
  let child;
  if (args[0] === "--bin") {
    env.PATH = join(root, "node_modules", ".bin") + delimiter + env.PATH;
    child = spawn(args[1], args.slice(2), { cwd: root, env, stdio: "inherit" });
  } else {
    child = spawn(node, args, { cwd: root, env, stdio: "inherit" });
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  // npm dies without a word on SIGKILL, and a shell between it and us may stay: when one of the two is gone, or we have
  // another parent, the child is told to stop.
  const parent = process.ppid;
  const grandparent = process.env.npm_lifecycle_event ? parentOf(parent) : undefined;
  setInterval(() => {
    if (process.ppid !== parent || parentOf(parent) !== (grandparent || parentOf(parent))) child.kill("SIGTERM");
  }, ABANDONED_CHECK_MS).unref();
  child.on("error", (error) => fail(`cannot start ${args.join(" ")}: ${error.message}`));
  child.on("exit", (code, signal) => {
    if (signal) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    } else process.exit(code);
  });
}

run();

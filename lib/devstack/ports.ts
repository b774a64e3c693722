// Ports: free ones for tests, and who holds a taken one.

import { readdir, readFile, readlink } from "node:fs/promises";
import { createServer } from "node:net";

// Below the range from which the kernel takes the ports of outgoing connections (32768 and up on Linux): a stopped server finds its port again.
const FIRST = 20_000;
const LAST = 32_000;
const TRIES = 200;
const given = new Set<number>();

async function portFree(port: number, host = "127.0.0.1"): Promise<boolean> {
  return await new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** A port that nobody listens on and that this process has not been given before. */
export async function freePort(): Promise<number> {
  for (let i = 0; i < TRIES; i++) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST));
    if (given.has(port) || !(await portFree(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no free port found between ${FIRST} and ${LAST} in ${TRIES} tries`);
}

/** "pid 12 (node server.js)" of the process that listens on `port`, where Linux tells; else undefined. */
async function portHolder(port: number): Promise<string | undefined> {
  const inodes = new Set<string>();
  const wanted = port.toString(16).toUpperCase().padStart(4, "0");
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    const lines = (await readFile(table, "utf8").catch(() => "")).split("\n").slice(1);
    for (const line of lines) {
      const fields = line.trim().split(/\s+/);
      if (fields[1]?.endsWith(`:${wanted}`) && fields[3] === "0A" && fields[9]) inodes.add(`socket:[${fields[9]}]`);
    }
  }
  if (inodes.size === 0) return undefined;
  for (const pid of (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name))) {
    for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
      if (!inodes.has(await readlink(`/proc/${pid}/fd/${fd}`).catch(() => ""))) continue;
      const command = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).replaceAll("\0", " ").trim();
      return `pid ${pid} (${command.slice(0, 120)})`;
    }
  }
  return undefined;
}

/** @throws Error that names every taken port, its holder and the setting that moves it */
export async function requireFreePorts(ports: readonly { readonly port: number; readonly setting: string }[]): Promise<void> {
  const faults: string[] = [];
  for (const { port, setting } of ports) {
    if (await portFree(port)) continue;
    const holder = await portHolder(port);
    faults.push(`port ${port} is taken${holder ? ` by ${holder}` : ""}; move it with ${setting}`);
  }
  if (faults.length > 0) throw new Error(faults.join("\n"));
}

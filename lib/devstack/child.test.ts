import { spawn } from "node:child_process";
import { expect, test } from "vitest";
import { waitFor } from "../base/loop.ts";
import { Child } from "./child.ts";

const env = { PATH: process.env.PATH };
function alive(pid: number): true | undefined {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return undefined;
  }
}

test("a killed child is restarted and said so", async () => {
  const deaths: string[] = [];
  await using child = new Child("sleeper", { command: "sleep", args: ["600"], env, onDeath: (exit) => deaths.push(String(exit.signal)) });
  child.start();
  const first = child.pid;
  child.kill("SIGKILL");
  await waitFor("a second run", () => (child.running && child.pid !== first ? true : undefined));
  expect(deaths).toEqual(["SIGKILL"]);
});

test("kill -9 of the parent leaves no orphan", async () => {
  const program = `import { Child } from "./lib/devstack/child.ts";
    const child = new Child("sleeper", { command: "sleep", args: ["600"], env: { PATH: process.env.PATH } });
    child.start(); console.log(child.pid); setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  const pid = await new Promise<number>((resolve) => parent.stdout.once("data", (data) => resolve(Number(String(data)))));
  expect(alive(pid)).toBe(true);
  parent.kill("SIGKILL");
  await waitFor("the child's end", () => (alive(pid) ? undefined : true));
});

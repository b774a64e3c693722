import { mkdtempSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { accountSigner } from "../streams/nkey.ts";
import { keepSecrets, lockFolder } from "./folder.ts";
import { freePort, requireFreePorts } from "./ports.ts";

test("a folder has one owner, a dead owner's lock is taken over, and secrets stay", () => {
  const dir = mkdtempSync(join(tmpdir(), "relog-folder-"));
  const lock = lockFolder(dir);
  expect(() => lockFolder(dir)).toThrow(`in use by pid ${process.pid}`);
  lock[Symbol.dispose]();
  writeFileSync(join(dir, "lock"), "999999999 1");
  lockFolder(dir)[Symbol.dispose]();
  expect(keepSecrets(dir)).toEqual(keepSecrets(dir));
});

test("secrets of an earlier version are completed, and those that are there stay", () => {
  const dir = mkdtempSync(join(tmpdir(), "relog-folder-"));
  const earlier = { key: "relog_dev_1", natsPassword: "p1", clickhousePassword: "p2", readerPassword: "p3" };
  writeFileSync(join(dir, "secrets.json"), JSON.stringify(earlier), { mode: 0o600 });
  const now = keepSecrets(dir);
  expect(now).toMatchObject(earlier);
  expect(accountSigner(now.natsCalloutSeed)?.publicKey).toMatch(/^A/);
  expect(now.natsSystemPassword).toMatch(/^p[0-9a-f]{32}$/);
  expect(keepSecrets(dir)).toEqual(now);
  expect(statSync(join(dir, "secrets.json")).mode & 0o777).toBe(0o600);
});

test("a taken port is named with its setting", async () => {
  const port = await freePort();
  const server = createServer();
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  await expect(requireFreePorts([{ port, setting: "RELOG_X_PORT" }])).rejects.toThrow(new RegExp(`port ${port} is taken.*RELOG_X_PORT`));
  server.close();
});

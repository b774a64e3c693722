import { mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
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

test("a taken port is named with its setting", async () => {
  const port = await freePort();
  const server = createServer();
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  await expect(requireFreePorts([{ port, setting: "RELOG_X_PORT" }])).rejects.toThrow(new RegExp(`port ${port} is taken.*RELOG_X_PORT`));
  server.close();
});

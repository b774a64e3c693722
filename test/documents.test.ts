// Generated documents are what the code says. After a change: `npm run docs`.

import { existsSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { documents } from "./documents/all.ts";
import { settingLines } from "./documents/tables.ts";

const generated = await documents();

it.each([...generated.keys()])("%s is up to date", (path) => {
  expect(existsSync(path) ? readFileSync(path, "utf8") : "", "run `npm run docs`").toBe(generated.get(path));
});

it("every setting that a process reads is in the table", async () => {
  const lines = await settingLines();
  expect(lines.length).toBeGreaterThan(40);
  expect(lines.filter((line) => line.why.length < 5)).toEqual([]);
});

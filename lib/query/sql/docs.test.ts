import { readFileSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { GENERATED, regenerate } from "./docs.ts";

const PATH = new URL("../../../docs/SQL.md", import.meta.url);

it("docs/SQL.md is equal to the lists and settings (RELOG_DOCS_WRITE=1 writes it)", () => {
  const text = readFileSync(PATH, "utf8");
  const wanted = regenerate(text);
  if (process.env.RELOG_DOCS_WRITE === "1") writeFileSync(PATH, wanted);
  else expect(text).toBe(wanted);
  for (const name of Object.keys(GENERATED)) expect(wanted).toContain(`<!-- begin ${name} -->`);
});

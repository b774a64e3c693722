// The engine computes some functions on the whole dictionary of a LowCardinality column, in which other tenants' values stand.
// One that fails on some values must not be on the list. RELOG_TEST_LONG=1 tries more shapes and columns.

import { expect, it } from "vitest";
import { LONG, scaled } from "../../../test/fault/random.ts";
import { fillGeneration, SECRET, startTestEngine } from "../testing.ts";
import { FUNCTIONS } from "./lists.ts";

it("no function computes on another tenant's values in the dictionary of a column", { timeout: scaled(120_000, 1_800_000) }, async () => {
  await using engine = await startTestEngine(process.env);
  await fillGeneration(engine.writer, 2, ["a"]);
  const shapes = [
    "F(x)",
    ...(LONG ? ["F(x, 1)", "F(x, 'a')", "F(1, x)", "F('a', x)", "F(x, 'UTC')", "F(x, 'a', 'b')", "F(x, 1, 1)", "F(x, '%Y')"] : []),
  ];
  const columns = ["event_name", ...(LONG ? ["attribute_types", "resource_types", "service"] : [])];
  const answer = await engine.writer.read({
    statement: "SELECT name FROM system.functions WHERE NOT is_aggregate AND alias_to = '' ORDER BY name FORMAT TSV",
  });
  const names = answer.toString("utf8").trim().split("\n");
  const settings = { log_comment: "a", optimize_use_projections: 0, use_skip_indexes: 0, default_format: "TSV" };
  const failure = (expression: string, database: string): Promise<string | undefined> =>
    engine.reader.read({ statement: `SELECT ignore(${expression}) FROM ${database}.logs`, settings }).then(
      () => undefined,
      (error: Error) => `${error.message} ${String(error.cause)}`,
    );
  const found: string[] = [];
  for (const name of names.filter((each) => FUNCTIONS.has(each.toLowerCase())))
    for (const shape of shapes)
      for (const column of columns) {
        const expression = shape.replace("F", name).replace("x", column);
        const failed = await failure(expression, "relog_g1");
        // What fails before there are rows fails for everybody.
        if (failed === undefined || failed.includes("In scope")) continue;
        if (failed.includes(SECRET) || (await failure(expression, "relog_g2")) === undefined) found.push(`${expression}: ${failed}`);
      }
  expect(found).toEqual([]);
});

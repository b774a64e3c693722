import { expect, it } from "vitest";
import { failureOf } from "./failure.ts";

const SYNTAX =
  "Code: 62. DB::Exception: Syntax error: failed at position 10 (FROMM): FROMM logs. Expected: x. (SYNTAX_ERROR) (version 26.7.2.1)";

it.each([
  [62, "query_invalid"],
  [47, "query_invalid"],
  [395, "query_invalid"],
  [99_999, "query_invalid"],
  [158, "query_too_expensive"],
  [159, "query_too_expensive"],
  [241, "query_too_expensive"],
  [396, "query_too_expensive"],
  [202, "store_unavailable"],
  [394, "store_unavailable"],
  [undefined, "store_unavailable"],
  [Number.NaN, "store_unavailable"],
  [497, "query_refused"],
  [164, "store_misconfigured"],
  [516, "store_misconfigured"],
  [49, "internal"],
])("code %s is %s, whatever the text says", (code, expected) => {
  for (const text of ["", SYNTAX, "(total) memory limit exceeded", "Code: 241."]) expect(failureOf(code, text).code).toBe(expected);
});

it("shows the place of a syntax error", () => {
  const error = failureOf(62, SYNTAX);
  expect(error.details).toEqual({ clickhouse: 62, position: 10, token: "FROMM" });
  expect(error.message).not.toContain("version");
});

it("names the limit and its setting", () => {
  expect(failureOf(159, "x").message).toContain("RELOG_QUERY_TIME_MAX");
});

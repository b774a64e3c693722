import { expect, test } from "vitest";
import type { Verdict } from "./verdict.ts";
import { verdictOf } from "./verdict.ts";

const report = (severities: Readonly<Record<string, string>>, high = 0, critical = 0) => ({
  auditReportVersion: 2,
  vulnerabilities: Object.fromEntries(Object.entries(severities).map(([name, severity]) => [name, { name, severity, via: [] }])),
  metadata: { vulnerabilities: { info: 0, low: 0, moderate: 0, high, critical, total: 0 } },
});
const refused = (statusCode: number | undefined) => ({ message: "m", method: "POST", statusCode, error: { summary: "", detail: "" } });

test.each<[string, unknown, number | null, Verdict["kind"]]>([
  ["nothing found", report({}), 0, "clean"],
  ["something of a lower level", report({ a: "moderate", b: "low" }), 0, "clean"],
  ["something high", report({ a: "high" }, 1), 1, "found"],
  ["something critical", report({ a: "critical" }, 0, 1), 1, "found"],
  ["findings though it ended well", report({ a: "high" }, 1), 0, "found"],
  ["findings that only the sums tell", report({}, 0, 1), 1, "found"],
  ["a bad end without findings", report({}), 1, "failed"],
  ["a registry without the endpoint", refused(405), 1, "unasked"],
  ["another one", refused(404), 1, "unasked"],
  ["one that npm 6 knows to have none", { error: { code: "ENOAUDIT", summary: "none", detail: "" } }, 1, "unasked"],
  ["a registry that is not reached", refused(undefined), 1, "unasked"],
  ["a registry that has it and fails", refused(500), 1, "failed"],
  ["a registry that wants a login", refused(401), 1, "failed"],
  ["no lock file", { error: { code: "ENOLOCK", summary: "no lock", detail: "" } }, 1, "failed"],
  ["an error with a code of its own", { message: "m", error: { code: "EUSAGE", summary: "" } }, 1, "failed"],
  ["no answer at all that ended well", refused(405), 0, "failed"],
  ["no object", [], 0, "failed"],
  ["half a report", { auditReportVersion: 2, vulnerabilities: { a: { severity: "high" } } }, 1, "failed"],
])("%s", (_, output, exit, kind) => {
  expect(verdictOf(JSON.stringify(output), exit).kind).toBe(kind);
});

test("findings are named; what is no JSON fails", () => {
  expect(verdictOf(JSON.stringify(report({ a: "high", b: "low" }, 1)), 1)).toEqual({ kind: "found", packages: ["a (high)"] });
  expect([verdictOf("", 1).kind, verdictOf("npm error", null).kind]).toEqual(["failed", "failed"]);
});

// What people see of a tail.

import { expect, test } from "vitest";
import { shownNote, shownRecord } from "./show.ts";

const RECORD = { time: "2026-01-02T03:04:05.123456789Z", level: "warn", service: "api", message: "hello" };
const marked = (text: string): string => `<${text}>`;

test.each<[object, boolean, string]>([
  [{}, false, "<2026-01-02T03:04:05.123>Z <warn>  <api> <hello>"],
  [{ service: "", level: "unknown" }, false, "<2026-01-02T03:04:05.123>Z <unknown> - <hello>"],
  [{ level: "error" }, true, "\u001b[2m<2026-01-02T03:04:05.123>Z\u001b[0m \u001b[31m<error>\u001b[0m \u001b[36m<api>\u001b[0m <hello>"],
  [{ level: "info" }, true, "\u001b[2m<2026-01-02T03:04:05.123>Z\u001b[0m <info>  \u001b[36m<api>\u001b[0m <hello>"],
])("%j, in colours: %s", (more, colours, line) => {
  expect(shownRecord(JSON.stringify({ ...RECORD, ...more }), marked, colours)).toBe(line);
});

test.each<[string, object, string]>([
  ["skipped", { skipped: { skipped: 3, unread: 0 } }, "3 records were skipped: too many at once"],
  ["skipped", { skipped: { skipped: 0, unread: 4 } }, "4 that were not looked at were skipped: too many at once"],
  ["skipped", { skipped: { skipped: 3, unread: 4 } }, "3 records and 4 that were not looked at were skipped: too many at once"],
  ["gap", { gap: { shard: 1, why: "gone" } }, "records of shard 1 may be missing: gone"],
  ["news", { a: 1 }, 'news: {"a":1}'],
])("%s %j is said", (event, data, sentence) => {
  expect(shownNote({ event, data: JSON.stringify(data) })).toBe(sentence);
});

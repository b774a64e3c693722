import { expect, test } from "vitest";
import { harmless } from "./harmless.ts";

test.each([
  ["plain", "plain"],
  ["Grüße 世界 👩‍👩‍👧", "Grüße 世界 👩‍👩‍👧"],
  ["\u009b31m", "\\u009b31m"],
  ["\u007f", "\\u007f"],
  ["a\u202eb\u2066c\u200f\u061c", "a\\u202eb\\u2066c\\u200f\\u061c"],
  ["a\u2028b\u2029c", "a\\u2028b\\u2029c"],
  ["\ufeff", "\\ufeff"],
])("%j is shown as %s, and means the same", (text, shown) => {
  const json = harmless(JSON.stringify({ [text]: text }));
  expect(json).toBe(`{"${shown}":"${shown}"}`);
  expect(JSON.parse(json)).toEqual({ [text]: text });
});

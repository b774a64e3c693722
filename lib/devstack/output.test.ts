import { expect, test } from "vitest";
import { newKey } from "../accounts/keys.ts";
import { withoutKeys } from "./output.ts";

const { id, key } = newKey();
const dev = `relog_dev_${"0123456789abcdef".repeat(2)}`;

test.each([
  [`User "${key}"`, `User "relog_${id}_..."`],
  [`${key} ${key}`, `relog_${id}_... relog_${id}_...`],
  [`{"user":"${dev}"}`, '{"user":"relog_dev_..."}'],
  ["relog_other_words and relog_dev", "relog_other_words and relog_dev"],
  [`"keyId":"${id}"`, `"keyId":"${id}"`],
])("of %j a log keeps %j", (line, kept) => {
  expect(withoutKeys(line)).toBe(kept);
});

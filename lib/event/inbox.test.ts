import { expect, it } from "vitest";
import { INBOX_PREFIX, inboxesOf, isOwnReply } from "./inbox.ts";

it.each<[string, string, boolean]>([
  ["_INBOX_acme.x", "acme", true],
  ["_INBOX_acme.x.y", "acme", true],
  ["_INBOX.x", "default", true],
  ["_INBOX_default.x", "default", true],
  ["_INBOX.x", "acme", false],
  ["_INBOX_acme", "acme", false],
  ["_INBOX_acme.", "acme", false],
  ["_INBOX_acmex.y", "acme", false],
  ["_INBOX_acme_x.y", "acme", false],
  ["_INBOX_default.x", "acme", false],
  ["_INBOX_RELOG.x", "default", false],
  ["_INBOX_RELOG.x", "relog", false],
  ["_inbox_acme.x", "acme", false],
  ["logs.0.acme", "acme", false],
  ["$JS.API.STREAM.PURGE.LOGS_0", "default", false],
  ["", "default", false],
])("%s is heard by %s alone: %s", (reply, tenant, own) => {
  expect(isOwnReply(reply, tenant, "default")).toBe(own);
});

it("the services' inbox is no tenant's", () => {
  for (const tenant of ["relog", "default", "a_relog"]) expect(inboxesOf(tenant, tenant)).not.toContain(INBOX_PREFIX);
});

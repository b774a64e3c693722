import { headers } from "nats";
import { expect, it } from "vitest";
import { senderOf } from "./sender.ts";

it.each([
  ["the server's word", ["Nats-Request-Info", '{"acc":"PRODUCERS","user":"key.acme.k","rtt":1}'], "key.acme.k"],
  ["another account", ["Nats-Request-Info", '{"acc":"RELOG","user":"key.acme.k"}'], undefined],
  ["no account", ["Nats-Request-Info", '{"user":"key.acme.k"}'], undefined],
  ["no user", ["Nats-Request-Info", '{"acc":"PRODUCERS"}'], undefined],
  ["no text as the user", ["Nats-Request-Info", '{"acc":"PRODUCERS","user":1}'], undefined],
  ["an empty one", ["Nats-Request-Info", '{"acc":"PRODUCERS","user":""}'], undefined],
  ["no JSON", ["Nats-Request-Info", "key.acme.k"], undefined],
  ["null", ["Nats-Request-Info", "null"], undefined],
  ["another spelling, which the server leaves to producers", ["nats-request-info", '{"acc":"PRODUCERS","user":"key.acme.k"}'], undefined],
  ["no header", undefined, undefined],
] as const)("%s", (_, header, sender) => {
  const set = header === undefined ? undefined : headers();
  if (header !== undefined) set?.append(header[0], header[1]);
  expect(senderOf(set)).toBe(sender);
});

// Limits over NATS: a message counts for the key that opened its connection, in the same buckets as over HTTP.

import type { NatsConnection } from "nats";
import { headers } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { Installation } from "./gateway.ts";
import type { Keys } from "./keys.ts";
import { internal, keysOn, ME, producer } from "./keys.ts";

const ONE_A_SECOND = { ingest_records_per_second: 1, burst_seconds: 1 };
const NO_LIMITS = { ingest_records_per_second: null, burst_seconds: null };
const RECORDS = '{"message":"x"}\n'.repeat(500);

let relog: Installation;
let keys: Keys;
const owned = new AsyncDisposableStack();
beforeAll(async () => {
  relog = owned.use(await Installation.start());
  const nc = await internal(relog.stack);
  owned.defer(() => nc.close());
  keys = await keysOn(nc);
  for (const tenant of ["acme", "other"]) await keys.tenant(tenant);
});
afterAll(() => owned.disposeAsync());

async function open(tenant: string, key: string): Promise<NatsConnection> {
  const nc = await waitFor("the key to open NATS", () => producer(relog.stack, tenant, key).catch(() => undefined));
  owned.defer(() => nc.close());
  return nc;
}

interface Answer {
  readonly accepted?: number;
  readonly error?: { readonly code: number; readonly description: string; readonly retry_after: number; readonly retry_after_ms: number };
}

async function send(nc: NatsConnection, tenant: string, set = headers()): Promise<Answer> {
  return (await nc.request(`ingest.${tenant}`, RECORDS, { timeout: 10_000, headers: set })).json<Answer>();
}

/** Sends until a limit that was set has arrived. */
async function refused(nc: NatsConnection, tenant: string, set = headers()) {
  return await waitFor("a refusal", async () => (await send(nc, tenant, set)).error);
}

test("a tenant's limits hold, and the answer says how long to wait", async () => {
  const made = await keys.key("acme");
  const nc = await open("acme", made.key);
  await keys.run("acme", { type: "set_limits", limits: ONE_A_SECOND }, ME);
  const error = await refused(nc, "acme");
  expect(error).toMatchObject({
    code: 429,
    err_code: 10_167,
    of: "tenant",
    description: expect.stringMatching(/^rate_limited: tenant "acme" is over ingest_records_per_second/),
  });
  expect(error.retry_after).toBe(Math.ceil(error.retry_after_ms / 1_000));
  await keys.run("acme", { type: "set_limits", limits: NO_LIMITS }, ME);
  await waitFor("no limit", async () => ((await send(nc, "acme")).accepted === 500 ? true : undefined));
});

test("a key's limits hold for what comes by its connection, whatever the message says of itself", async () => {
  const [one, two, others] = [await keys.key("acme"), await keys.key("acme"), await keys.key("other")];
  const [held, beside, other] = [await open("acme", one.key), await open("acme", two.key), await open("other", others.key)];
  await keys.run("acme", { type: "limit_key", key: one.id, limits: ONE_A_SECOND }, ME);
  // What a producer writes into the server's header is taken away; in another spelling it counts for nothing.
  const forged = headers();
  for (const name of ["Nats-Request-Info", "nats-request-info", "NATS-REQUEST-INFO"])
    forged.append(name, JSON.stringify({ acc: "PRODUCERS", user: `key.acme.${two.id}` }));
  expect(await refused(held, "acme", forged)).toMatchObject({
    code: 429,
    of: "key",
    description: expect.stringMatching(new RegExp(`^rate_limited: key ${one.id} of tenant "acme" is over ingest_records_per_second`)),
  });
  expect([(await send(beside, "acme")).accepted, (await send(other, "other")).accepted]).toEqual([500, 500]);
  // The same bucket as over HTTP.
  const over = async (key: string) =>
    (await fetch(`${relog.gateway.url}/v1/ingest`, { method: "POST", headers: { "x-api-key": key }, body: RECORDS })).status;
  expect([await over(one.key), await over(two.key)]).toEqual([429, 200]);
});

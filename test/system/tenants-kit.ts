// What the tests of tenants have in common: making one, changing it, sending as it.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import type { Rig } from "../fault/kit.ts";

export { LEASE } from "./replay-kit.ts";

// biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
type Answer = any;

export async function asked(service: Service, key: string, line: string, body?: unknown): Promise<{ status: number; body: Answer }> {
  const [method = "", path = ""] = line.split(" ");
  const text = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
  const answer = await fetch(`${service.url}${path}`, { method, headers: { "x-api-key": key }, ...text });
  const raw = await answer.text();
  return { status: answer.status, body: raw.startsWith("{") ? JSON.parse(raw) : raw };
}

/** Makes a tenant. Returns a key of it. */
export async function tenantKey(rig: Rig, query: Service, tenant: string): Promise<string> {
  expect((await asked(query, rig.key, "POST /v1/tenants", { tenant })).status).toBe(201);
  const { status, body } = await asked(query, rig.key, `POST /v1/tenants/${tenant}/keys`, { scopes: ["ingest", "query", "admin"] });
  expect(status).toBe(201);
  return body.key;
}

/** Changes a tenant's limits. Returns the answer. */
export async function changed(query: Service, key: string, tenant: string, change: unknown, status = 200): Promise<Answer> {
  const answer = await asked(query, key, `PATCH /v1/tenants/${tenant}/limits`, change);
  expect(answer.status, JSON.stringify(answer.body)).toBe(status);
  return answer.body;
}

/** Sends records as soon as the gateway knows the key. */
export async function ingested(gateway: Service, key: string, records: unknown): Promise<void> {
  const body = typeof records === "string" ? records : JSON.stringify(records);
  await waitFor("the gateway to take them", async () => {
    const { status } = await asked(gateway, key, "POST /v1/ingest", body);
    return status === 200 ? true : status === 401 ? undefined : expect(status).toBe(200);
  });
}

// What becomes of records beyond a quota on a running installation: deferred and released, dropped and told, and what usage says of it.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Rig } from "../fault/kit.ts";
import { faultTest } from "../fault/kit.ts";
import { ran } from "../fault/relog.ts";
import { asked, tenantKey } from "./tenants-kit.ts";

const lines = (from: number, count: number): string =>
  Array.from({ length: count }, (_, i) => JSON.stringify({ service: "shop", message: `m${from + i}` })).join("\n");

const rowsOf = async (rig: Rig, where: string): Promise<string[]> =>
  (await rig.sql(`SELECT body FROM relog_g1.logs WHERE tenant = 'acme' AND ${where} ORDER BY observed_timestamp, line`)).map(
    ([body]) => body!,
  );

faultTest("a quota that ends defers what comes, a raise releases it in order; then it drops, and the log and usage say so", async (rig) => {
  const [gateway, second, query] = [await rig.gateway(), await rig.gateway(), await rig.service("query")];
  await rig.projector();
  const scheduler = await rig.service("scheduler");
  const key = await tenantKey(rig, query, "acme");
  await ran(rig, ["limits", "set", "acme", "records_per_day=10", "over_quota=defer"]);
  const post = async (to: typeof gateway, body: string, headers: Record<string, string> = {}) => {
    const answer = await fetch(`${to.url}/v1/ingest`, { method: "POST", body, headers: { "x-api-key": key, ...headers } });
    // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
    return (await answer.json()) as any;
  };
  expect((await post(gateway, lines(0, 10), { "idempotency-key": "first" })).stream).toMatch(/^LOGS_/);
  // Both know within a moment that it is used up.
  let sent = 10;
  for (const to of [gateway, second]) {
    const answer = await waitFor("a deferred call", async () => {
      const one = await post(to, lines(sent++, 1));
      return one.stream === "DEFERRED" ? one : undefined;
    });
    expect(answer).toMatchObject({ accepted: 1, deferred: { reason: expect.stringContaining("records_per_day (10)") } });
  }
  const stored = await waitFor("what was stored", async () => {
    const rows = await rowsOf(rig, "1");
    return rows.length >= 10 ? rows : undefined;
  });
  expect(stored.length).toBeLessThan(sent);
  // What was stored before the end is answered as ever.
  expect(await post(second, lines(0, 10), { "idempotency-key": "first" })).toMatchObject({ accepted: 10, duplicate: true });
  const waiting = (await ran(rig, ["deferred", "list", "--json"])).out.trim();
  expect(JSON.parse(waiting)).toMatchObject({ tenant: "acme", messages: sent - stored.length });
  // Released by a raise, in order, by whichever scheduler is there.
  scheduler.kill("SIGKILL");
  await ran(rig, ["limits", "set", "acme", "records_per_day=100"]);
  await scheduler.restart();
  const all = await waitFor(
    "all records",
    async () => ((await rowsOf(rig, "1")).length >= sent ? await rowsOf(rig, "1") : undefined),
    30_000,
  );
  expect(all).toEqual(Array.from({ length: sent }, (_, i) => `m${i}`));
  // The next end drops.
  await ran(rig, ["limits", "set", "acme", `records_per_day=${sent}`, "over_quota=drop"]);
  const dropped = await waitFor("a dropped call", async () => {
    const answer = await post(gateway, lines(1_000, 7));
    return answer.dropped === undefined ? undefined : answer;
  });
  expect(dropped).toMatchObject({ accepted: 7, dropped: { records: 7 } });
  expect((await asked(query, key, `GET /v1/receipts/${dropped.id}`)).body).toMatchObject({ stored: false });
  const gaps = await waitFor(
    "the gap record",
    async () => {
      const found = await rig.sql(
        "SELECT attributes['gap.records'], body FROM relog_g1.logs WHERE tenant = 'acme' AND event_name = 'relog.gap'",
      );
      return found.length > 0 ? found : undefined;
    },
    40_000,
  );
  expect(gaps[0]![1]).toContain("records_per_day");
  const kept = (await rowsOf(rig, "body LIKE 'm1%' AND toUInt32OrZero(substring(body, 2)) >= 1000")).length;
  expect(Number(gaps[0]![0]) + kept).toBeGreaterThanOrEqual(7);
  const { body } = await asked(query, key, "GET /v1/usage?by=day");
  expect(body.quotas).toMatchObject([{ quota: "records_per_day", limit: sent, left: 0 }]);
  expect((await asked(query, key, "GET /v1/audit?what=quota_warning")).body.entries.length).toBeGreaterThanOrEqual(2);
});

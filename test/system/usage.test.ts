// Usage from end to end: what was sent is what is closed, what the headers say, and what is recomputed from the log; and what
// somebody changes in the tables is found.

import { join } from "node:path";
import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { readEnvelope } from "../../lib/event/envelope.ts";
import { readStream, streamState } from "../../lib/streams/read.ts";
import type { Rig } from "../fault/kit.ts";
import { faultTest } from "../fault/kit.ts";
import { ran } from "../fault/relog.ts";
import { LEASE } from "./replay-kit.ts";

const FAST = { ...LEASE, RELOG_USAGE_EVERY: "200ms" };
const TENANTS = { default: "", acme: "relog_dev_acme" };
const SERVICES = ["api", "web", "", "zürich"];

/** Everything of today and more, open quarters too. */
const verifyUntil = (): string[] => ["usage", "verify", "--until", new Date(Date.now() + 3_600_000).toISOString()];

async function send(url: string, key: string, records: number, from = 0): Promise<void> {
  const lines = Array.from({ length: records }, (_, i) =>
    JSON.stringify({
      message: `record ${from + i} ü`,
      service: SERVICES[(from + i) % SERVICES.length],
      timestamp: new Date(Date.now() - i * 3_600_000).toISOString(),
      user: { id: i, tags: ["a", "b"] },
      ok: true,
      ratio: 1.5e10,
    }),
  );
  const answer = await fetch(`${url}/v1/ingest`, { method: "POST", headers: { authorization: `Bearer ${key}` }, body: lines.join("\n") });
  expect(answer.status).toBe(200);
}

/** Records and bytes by tenant, as the messages' headers say. */
async function headersOf(rig: Rig): Promise<string[][]> {
  const sums = new Map<string, [number, number]>();
  for (const shard of [0, 1]) {
    const { messages } = await readStream(await rig.nats(), `LOGS_${shard}`, 1, { messagesMax: 1_000, bytesMax: 2 ** 25 }, 5_000);
    for (const message of messages) {
      const envelope = readEnvelope(message.header);
      if ("fault" in envelope) throw new Error(envelope.fault);
      const [records, bytes] = sums.get(envelope.tenant) ?? [0, 0];
      sums.set(envelope.tenant, [records + envelope.records, bytes + envelope.size]);
    }
  }
  return [...sums].map(([tenant, both]) => [tenant, ...both.map(String)]).sort();
}

const CLOSED =
  "SELECT tenant, sum(n), sum(size) FROM (SELECT tenant, quarter, service, max(records) AS n, max(bytes) AS size FROM relog.usage GROUP BY tenant, quarter, service) GROUP BY tenant ORDER BY tenant";

async function untilClosed(rig: Rig, expected: string[][]): Promise<void> {
  await waitFor("usage to be taken over", async () => {
    const found = await rig.sql(CLOSED).catch(() => []);
    return JSON.stringify(found) === JSON.stringify(expected) || undefined;
  });
}

faultTest("what was sent, the headers' sums, the closed table, the answer and what is recomputed are the same", async (rig) => {
  const gateway = await rig.gateway();
  const acme = await rig.gateway({ RELOG_TENANT: "acme", RELOG_KEY: TENANTS.acme });
  await rig.projector(LEASE);
  const scheduler = await rig.service("scheduler", FAST);
  await ran(rig, ["tenants", "create", "acme"]);
  for (let i = 0; i < 5; i++) {
    await send(gateway.url, rig.key, 40, i);
    await send(acme.url, TENANTS.acme, 7, i * 3);
  }
  await rig.caughtUp();
  const headers = await headersOf(rig);
  expect(headers.map(([tenant, records]) => [tenant, records])).toEqual([
    ["acme", "35"],
    ["default", "200"],
  ]);
  await untilClosed(rig, headers);
  const services = "SELECT groupUniqArray(service) FROM relog.usage WHERE tenant = 'default' FORMAT JSONCompactEachRow";
  expect(JSON.parse((await rig.sql(services))[0]![0]!)[0].sort()).toEqual([...SERVICES].sort());

  const query = await rig.service("query");
  await ran(rig, ["limits", "set", "default", "records_per_day=1000", "bytes_per_month=1", "time_zone=Asia/Kathmandu"]);
  const body = await waitFor("the query service to know of the quotas", async () => {
    const answer = await fetch(`${query.url}/v1/usage?by=month&group=service`, { headers: { authorization: `Bearer ${rig.key}` } });
    const usage = (await answer.json()) as {
      quotas?: { used: number; left: number; ends: string | null }[];
      totals: object;
      rows: object[];
    };
    return usage.quotas?.length === 2 ? usage : undefined;
  });
  expect(body.totals).toEqual({ records: 200, bytes: Number(headers[1]![2]) });
  expect(body.rows.length).toBeGreaterThanOrEqual(SERVICES.length);
  expect(body.quotas![1]).toMatchObject({ used: Number(headers[1]![2]), left: 0, ends: expect.stringContaining("T") });

  const equal = await ran(rig, verifyUntil());
  expect(equal.out).toContain("235 records");
  expect(equal.out).toMatch(/EQUAL\n$/);
  expect((await ran(rig, [...verifyUntil(), "--tenant", "acme", "--json"])).out).toContain('"records":35');
  const shown = (await ran(rig, ["usage", "show", "--service"])).out;
  for (const text of ["zürich", "records_per_day", "acme"]) expect(shown).toContain(text);
  expect((await ran(rig, ["usage", "what-if", "default", "records_per_month=150", "--zone", "UTC"])).out).toMatch(
    /records_per_month +150 .* 50 /,
  );

  // Closing again changes nothing that was not changed in the records; whoever changes a figure is found.
  await scheduler.child.stop();
  await rig.sql(
    "INSERT INTO relog.usage SELECT tenant, quarter, service, records + 1, bytes, closed FROM relog.usage WHERE tenant = 'acme' AND service = 'web' LIMIT 1",
  );
  await rig.sql("ALTER TABLE relog_g1.logs DELETE WHERE tenant = 'acme' AND service = 'zürich'", "mutations_sync=2");
  const damaged = await ran(rig, verifyUntil(), {}, 1);
  expect(damaged.out).toMatch(/closed: .* tenant acme service "web"/);
  expect(damaged.out).toMatch(/live: .* tenant acme service "zürich": 0 records, 0 bytes; the log says/);
  expect(damaged.out).not.toContain("tenant default");
});

faultTest("usage outlives its records, and what is parked is not counted", async (rig) => {
  const env = { RELOG_RETENTION_DAYS: "1" };
  const gateway = await rig.gateway();
  await rig.projector({ ...LEASE, ...env });
  const lines = [0, 0, 1].map((days) =>
    JSON.stringify({ message: "abc", service: "s", timestamp: new Date(Date.now() - days * 86_400_000).toISOString() }),
  );
  const answer = await fetch(`${gateway.url}/v1/ingest`, {
    method: "POST",
    headers: { authorization: `Bearer ${rig.key}` },
    body: lines.join("\n"),
  });
  expect(answer.status).toBe(200);
  await rig.caughtUp();
  await rig.service("scheduler", { ...FAST, ...env });
  const headers = await headersOf(rig);
  await untilClosed(rig, headers);
  expect((await ran(rig, verifyUntil(), env)).out).toContain("EQUAL");
  for (const [partition] of await rig.sql(
    "SELECT DISTINCT partition_id FROM system.parts WHERE active AND database = 'relog_g1' AND table = 'logs'",
  ))
    await rig.sql(`ALTER TABLE relog_g1.logs DROP PARTITION ID '${partition}'`);
  expect(await rig.count()).toBe(0);
  // A retention that really lets them go says so; here somebody dropped them, and the closed table still has them.
  const dropped = await ran(rig, verifyUntil(), env, 1);
  expect(dropped.out).toContain("live: ");
  expect(dropped.out).not.toContain("closed: ");
  await send(gateway.url, rig.key, 4);
  await rig.caughtUp();
  await untilClosed(rig, await headersOf(rig));
  const poison = await rig.nats();
  await poison.jetstream().publish("logs.0.default", "no batch");
  await waitFor("the letter", async () => (await rig.deadLetters()).length === 1 || undefined);
  expect((await ran(rig, verifyUntil(), env, 1)).out).not.toContain("closed: ");
  await ran(rig, ["rebuild"], env);
  expect((await ran(rig, verifyUntil(), env)).out).toContain("EQUAL");
});

faultTest("usage is recomputed from the archive when the streams have let everything go, and what neither has is left out", async (rig) => {
  const archive = join(rig.stack.dir, "archive");
  const env = {
    ...FAST,
    RELOG_ARCHIVE: archive,
    RELOG_ARCHIVE_SEGMENT_AGE: "500ms",
    RELOG_ARCHIVE_POLL: "100ms",
    RELOG_ARCHIVE_KEEP: "0s",
    RELOG_ARCHIVE_TRIM: "500ms",
  };
  const gateway = await rig.gateway(env);
  await rig.projector(env);
  for (let i = 0; i < 4; i++) await send(gateway.url, rig.key, 10, i);
  await rig.caughtUp();
  const headers = await headersOf(rig);
  await rig.service("scheduler", env);
  const nc = await rig.nats();
  for (const shard of [0, 1])
    await waitFor(`stream ${shard} to be let go`, async () => (await streamState(nc, `LOGS_${shard}`)).messages === 0 || undefined, 60_000);
  await untilClosed(rig, headers);
  const equal = (await ran(rig, verifyUntil(), env)).out;
  expect(equal).toContain("40 records");
  expect(equal).toMatch(/EQUAL\n$/);
  // Without the archive nothing is left to recompute from.
  const { out } = await ran(rig, verifyUntil());
  expect(out).toMatch(/left out: .*\n/);
  expect(out).toContain(" 0 figures compared");
});

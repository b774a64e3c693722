// Deleting a tenant: everything of it leaves, nothing of others does, and a certificate says what.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { register } from "../../lib/streams/cas.ts";
import type { Rig } from "../fault/kit.ts";
import { died, faultTest } from "../fault/kit.ts";
import { at, envOf, markersIn, sealed, sendDay, within } from "../fault/rehydrate-kit.ts";
import { ran } from "../fault/relog.ts";
import { asked, ingested, LEASE, tenantKey } from "./tenants-kit.ts";

const BATCHES = 12;
const UNTIL_REMOVED_MS = 60_000;

/** Rows of a tenant and a sum over all that they hold. */
const held = async (rig: Rig, tenant: string, generation = 1): Promise<string[]> =>
  (
    await rig.sql(
      `SELECT count(), sum(cityHash64(timestamp, body, batch, line)) FROM relog_g${generation}.logs WHERE tenant = '${tenant}' SETTINGS optimize_use_projections = 0`,
    )
  )[0]!;

async function filled(rig: Rig, gateway: Service, key: string): Promise<void> {
  for (let batch = 0; batch < BATCHES; batch++) {
    const timestamp = new Date(Date.now() - (batch % 3) * 86_400_000).toISOString();
    const lines = [1, 2, 3].map((line) => JSON.stringify({ timestamp, message: `batch ${batch} line ${line}` }));
    await ingested(gateway, key, lines.join("\n"));
  }
  await rig.caughtUp();
}

/** Usage up to now, open quarters too. */
const usageVerify = (): string[] => ["usage", "verify", "--until", new Date(Date.now() + 3_600_000).toISOString()];

async function certificate(rig: Rig, query: Service, tenant: string) {
  return await waitFor(
    `the certificate of ${tenant}`,
    async () => {
      const { status, body } = await asked(query, rig.key, `GET /v1/tenants/${tenant}/certificate`);
      expect(status).toBe(200);
      return body.state === "removed" ? body : undefined;
    },
    UNTIL_REMOVED_MS,
    200,
  );
}

faultTest("everything of a deleted tenant leaves, nothing of another one does, and no rebuild brings it back", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  await rig.projector(LEASE);
  const [gone, kept] = [await tenantKey(rig, query, "gone"), await tenantKey(rig, query, "kept")];
  await filled(rig, gateway, gone);
  await filled(rig, gateway, kept);
  await ran(rig, ["rebuild"]);
  await rig.caughtUp(undefined, 2);
  const nc = await rig.nats();
  const { streams } = await nc.jetstreamManager();
  // What it sent is more than it may send now: the rest waits.
  await ran(rig, ["limits", "set", "kept", "records_per_day=1", "over_quota=defer"]);
  for (const subject of ["dead.0.gone", "dead.0.kept", "deferred.1.gone", "deferred.1.kept"])
    await nc.jetstream().publish(subject, "letter");
  await register(nc, "gap.gone.x").write({}, 0);
  await register(nc, "gap.kept.x").write({}, 0);
  const before = await held(rig, "kept");
  expect(await held(rig, "gone")).not.toEqual(["0", "0"]);

  const early = await asked(query, rig.key, "GET /v1/tenants/gone/certificate");
  expect([early.status, early.body.error.code]).toEqual([400, "bad_request"]);
  expect((await asked(query, rig.key, "DELETE /v1/tenants/gone?reason=contract%20ended")).status).toBe(200);
  expect((await ran(rig, ["tenants", "certificate", "gone"], {}, 1)).said).toContain("nothing is certified yet");
  // Between tombstone and removal nothing differs, in the log and between generations.
  await ran(rig, ["verify", "--all"]);
  await ran(rig, ["verify", "--compare", "1,2"]);
  await rig.service("scheduler", LEASE);
  const { certificates } = await certificate(rig, query, "gone");
  for (const generation of [1, 2]) {
    expect(await held(rig, "gone", generation)).toEqual(["0", "0"]);
    expect(await held(rig, "kept", generation)).toEqual(before);
  }
  const rows = 3 * BATCHES;
  expect(certificates).toMatchObject([
    {
      site: "main",
      rows: 2 * rows,
      tables: [
        { table: "relog_g1.logs", rows },
        { table: "relog_g2.logs", rows },
      ],
      dead_letters: 1,
      deferred: 1,
      registers: ["gap.gone.x"],
      remains: { archive: null },
    },
  ]);
  const [{ first_timestamp: first, last_timestamp: last, remains, deleted, verified }] = certificates;
  expect(Date.parse(last) - Date.parse(first)).toBeGreaterThan(86_400_000);
  expect(Date.parse(verified)).toBeGreaterThanOrEqual(Date.parse(deleted));
  expect(remains.streams.reduce((sum: number, { messages }: { messages: number }) => sum + messages, 0)).toBe(BATCHES);
  expect((await streams.info("DEFERRED", { subjects_filter: ">" })).state.subjects).toEqual({ "deferred.1.kept": 1 });
  expect((await register(nc, "gap.kept.x").read())?.value).toEqual({});
  expect((await ran(rig, ["dead", "list", "--json"])).out).toContain('"tenant":"kept"');
  expect((await ran(rig, ["dead", "list", "--json"])).out).not.toContain('"tenant":"gone"');
  expect((await ran(rig, ["tenants", "certificate", "gone", "--json"])).out).toContain('"state":"removed"');
  expect((await ran(rig, ["audit", "--json"])).out).toContain("tenant_erased");

  await ran(rig, ["verify", "--all"]);
  await ran(rig, ["rebuild"]);
  expect(await held(rig, "gone", 3)).toEqual(["0", "0"]);
  expect(await held(rig, "kept", 3)).toEqual(before);
  await ran(rig, ["verify"]);
  expect((await asked(query, rig.key, "POST /v1/tenants", { tenant: "gone" })).body.error.code).toBe("tenant_deleted");
  // Rows that came back all the same would be a difference.
  await rig.sql("INSERT INTO relog_g3.logs (tenant, timestamp, batch, line) VALUES ('gone', now() - 100, '01M0000000AAAAAAAAAAAAAAAA', 0)");
  expect((await ran(rig, ["verify", "--generation", "3"], {}, 1)).out).toContain("extra");
});

faultTest("usage outlives the rows: a rebuild closes it before it sweeps, a removal before it removes", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  await rig.projector(LEASE);
  const gone = await tenantKey(rig, query, "gone");
  const closed = (): Promise<string[][]> =>
    rig.sql("SELECT sum(n) FROM (SELECT max(records) AS n FROM relog.usage WHERE tenant = 'gone' GROUP BY quarter, service)");
  await filled(rig, gateway, gone);
  await ran(rig, ["rebuild"]);
  expect(await closed()).toEqual([[`${3 * BATCHES}`]]);

  const scheduler = await rig.service("scheduler", { ...LEASE, RELOG_USAGE_EVERY: "1h" });
  await waitFor("the scheduler to have closed once", async () => {
    const metrics = await (await fetch(`${scheduler.url}/metrics`)).text();
    return /^relog_usage_closed_timestamp_seconds\{.*\} [1-9]/m.test(metrics) || undefined;
  });
  await filled(rig, gateway, gone);
  expect((await asked(query, rig.key, "DELETE /v1/tenants/gone")).status).toBe(200);
  await certificate(rig, query, "gone");
  expect(await closed()).toEqual([[`${6 * BATCHES}`]]);
  await ran(rig, usageVerify());
});

faultTest("what is late is stored no more: a projector that was away, and messages behind the certificate", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  const projector = await rig.projector(LEASE);
  const [gone, kept] = [await tenantKey(rig, query, "gone"), await tenantKey(rig, query, "kept")];
  await filled(rig, gateway, gone);
  projector.kill("SIGKILL");
  await died(projector);
  await ingested(gateway, gone, '{"message":"late"}');
  await ingested(gateway, kept, '{"message":"late"}');
  expect((await asked(query, rig.key, "DELETE /v1/tenants/gone")).status).toBe(200);
  await rig.service("scheduler", LEASE);
  const { certificates } = await certificate(rig, query, "gone");
  expect(certificates[0].rows).toBe(3 * BATCHES);
  await rig.projector(LEASE);
  await rig.caughtUp();
  expect(await held(rig, "gone")).toEqual(["0", "0"]);
  expect((await held(rig, "kept"))[0]).toBe("1");
  await ran(rig, ["verify"]);
  await ran(rig, usageVerify());
});

faultTest("a projector that slept through deletion, removal and certificate stores nothing of it when it wakes up", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  const projector = await rig.projector(LEASE);
  const [gone, kept] = [await tenantKey(rig, query, "gone"), await tenantKey(rig, query, "kept")];
  await filled(rig, gateway, gone);
  projector.pause();
  for (let late = 0; late < BATCHES; late++) await ingested(gateway, gone, '{"message":"late"}');
  await ingested(gateway, kept, '{"message":"late"}');
  expect((await asked(query, rig.key, "DELETE /v1/tenants/gone")).status).toBe(200);
  await rig.service("scheduler", LEASE);
  await certificate(rig, query, "gone");
  projector.resume();
  await rig.caughtUp();
  expect(await held(rig, "gone")).toEqual(["0", "0"]);
  expect((await held(rig, "kept"))[0]).toBe("1");
  await ran(rig, ["verify"]);
});

faultTest(
  "tables from the archive lose it too, and none that is filled later has it; the certificate says what the archive keeps",
  async (rig) => {
    const env = envOf(rig);
    await rig.projector(env);
    const [gateway, query] = [await rig.gateway(env), await rig.service("query", env)];
    await rig.service("scheduler", env);
    const keys = { gone: await tenantKey(rig, query, "gone"), kept: await tenantKey(rig, query, "kept") };
    for (const [tenant, key] of Object.entries(keys)) await ingested(gateway, key, { message: `the key of ${tenant} is known` });
    const sent = [...(await sendDay(gateway, "gone", keys.gone, 0, 4)), ...(await sendDay(gateway, "kept", keys.kept, 0, 4))];
    await sealed(rig);
    const range = ["--since", at(0, 0), "--until", at(1, 0)];
    await ran(rig, ["rehydrate", "may", ...range], env);
    const of = (tenant?: string) => within(sent, at(0, 0), at(1, 0), tenant);
    expect(await markersIn(rig, "archive_may")).toEqual(of());
    expect((await asked(query, rig.key, "DELETE /v1/tenants/gone")).status).toBe(200);
    const { certificates } = await certificate(rig, query, "gone");
    expect(certificates[0].tables).toContainEqual({ table: "relog_archive.archive_may", rows: of("gone").length });
    expect(certificates[0].remains.archive.records).toBeGreaterThanOrEqual(of("gone").length);
    expect(certificates[0].remains.archive.segments).toBeGreaterThan(0);
    expect(await markersIn(rig, "archive_may")).toEqual(of("kept"));
    await ran(rig, ["rehydrate", "later", ...range], env);
    expect(await markersIn(rig, "archive_later")).toEqual(of("kept"));
  },
);

const STEPS = ["waiting", "counting", "removing", "removed", "purged", "checking", "certifying", "certified"];

faultTest("a scheduler that is killed at any step: the next one goes on, and the certificate is the same", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  await rig.projector(LEASE);
  const nc = await rig.nats();
  const kept = await tenantKey(rig, query, "kept");
  const ofStep = STEPS.map((step) => ({ step, gone: `gone-${step}` }));
  for (const { gone } of ofStep) {
    await filled(rig, gateway, await tenantKey(rig, query, gone));
    await nc.jetstream().publish(`dead.0.${gone}`, "letter");
  }
  await filled(rig, gateway, kept);
  const before = await held(rig, "kept");
  for (const { step, gone } of ofStep) {
    rig.notes.push(`killed at ${step}`);
    const killed = await rig.service("scheduler", { ...LEASE, RELOG_FAILPOINT: `erasure-${step}` });
    expect((await asked(query, rig.key, `DELETE /v1/tenants/${gone}`)).status).toBe(200);
    await died(killed);
    const next = await rig.service("scheduler", LEASE);
    const { certificates } = await certificate(rig, query, gone);
    const rows = 3 * BATCHES;
    expect(certificates).toMatchObject([{ rows, tables: [{ table: "relog_g1.logs", rows }], dead_letters: 1 }]);
    expect(await held(rig, gone)).toEqual(["0", "0"]);
    expect(await held(rig, "kept")).toEqual(before);
    await waitFor("its register to go", async () => ((await register(nc, `erasure.main.${gone}`).read()) === undefined ? true : undefined));
    next.kill("SIGKILL");
    await died(next);
  }
  await ran(rig, ["verify"]);
});

// Operating on dead letters: what is dropped leaves a trace, what strangers wrote does no harm, and HTTP does what the command does.

import { headers as natsHeaders } from "nats";
import { expect } from "vitest";
import { deadLetters, deadLetterWatch, noRetryUnderWay } from "../../cmd/parts/dead.ts";
import { projectionSettings } from "../../cmd/parts/projection.ts";
import { openDirectory, policyOf } from "../../cmd/parts/tenants.ts";
import { readSettings } from "../../lib/base/config.ts";
import { Health } from "../../lib/base/health.ts";
import { withContractErrors } from "../../lib/base/http.ts";
import { SCOPES } from "../../lib/base/principal.ts";
import { createTelemetry } from "../../lib/base/telemetry.ts";
import { deadLettersApi } from "../../lib/dead/api.ts";
import { deadLetterMetrics } from "../../lib/dead/metrics.ts";
import { HEADERS } from "../../lib/event/envelope.ts";
import { readRetention } from "../../lib/event/retention.ts";
import { rebuildKey } from "../../lib/replay/job.ts";
import { openClickHouse } from "../../lib/store/client.ts";
import { register } from "../../lib/streams/cas.ts";
import { DEAD_HEADERS } from "../../lib/streams/dead.ts";
import { dead, LEASE, letterCount, MEND, operations, withLetters } from "./dead-kit.ts";
import { faultTest } from "./kit.ts";

faultTest("what is dropped is logged and audited; nothing is dropped by leaving everything out", async (rig) => {
  const { poisoned } = await withLetters(rig, 10, [1, 2, 3]);
  for (const args of [["drop", "--yes"], ["drop", "--all"], ["drop", "--all", "--yes", "--dry-run"], ["retry"], ["drop", "x", "--yes"]])
    expect((await dead(rig, args)).code).toBe(2);
  const dry = await dead(rig, ["drop", "--reason", "record_refused", "--dry-run"]);
  expect([dry.rows.length, await letterCount(rig)]).toEqual([3, 3]);
  const seq = dry.rows[0]!.seq as number;
  const one = await dead(rig, ["drop", String(seq), "--yes"]);
  expect(one.err).toMatch(new RegExp(`dead letter dropped \\(seq=${seq}, tenant=default, reason=record_refused, batch=\\w{26}, lines=1,`));
  const rest = await dead(rig, ["drop", "--all", "--yes"]);
  expect([rest.rows.length, await letterCount(rig)]).toEqual([2, 0]);
  const events = await operations(rig);
  expect(events).toMatchObject([
    {
      what: "dead_letters_dropped",
      count: 1,
      letters: [expect.objectContaining({ seq: seq, tenant: "default", batch: expect.any(String), lines: "1", reason: "record_refused" })],
    },
    { what: "dead_letters_dropped", count: 2 },
  ]);
  expect(events[0]).toMatchObject({
    id: expect.stringMatching(/^[0-9A-Z]{26}$/),
    who: expect.stringMatching(/^user /),
    where: expect.any(String),
  });
  await rig.assertInvariants(new Set(poisoned));
});

faultTest("texts of strangers in a letter's headers can neither control the terminal nor make lines of the log", async (rig) => {
  await rig.gateway();
  const evil = "\u001b[2J\u009b31m\u202e evil\u0007";
  const nc = await rig.nats();
  for (const [name, tenant] of [
    [DEAD_HEADERS.reason, "acme"],
    [DEAD_HEADERS.site, "acme"],
    [HEADERS.batch, "ac\u001bme"],
  ]) {
    const header = natsHeaders();
    for (const [key, value] of [
      [DEAD_HEADERS.reason, "record_refused"],
      [DEAD_HEADERS.site, "main"],
      [DEAD_HEADERS.generation, "1"],
      [DEAD_HEADERS.sequence, "1"],
    ])
      header.set(key!, value!);
    header.set(name!, evil);
    await nc.jetstream().publish(`dead.0.${tenant}.x`, evil, { headers: header });
  }
  const letters = (await dead(rig, ["list"])).rows;
  expect(letters.length).toBe(3);
  const outputs = [
    await dead(rig, ["list", "--text"]),
    await dead(rig, ["list", "--summary", "--text"]),
    await dead(rig, ["list"]),
    ...(await Promise.all(letters.flatMap(({ seq }) => [dead(rig, ["show", String(seq), "--text"]), dead(rig, ["show", String(seq)])]))),
    await dead(rig, ["drop", "--all", "--dry-run", "--text"]),
    await dead(rig, ["drop", "--all", "--yes", "--text"]),
  ];
  for (const { out, err } of outputs) expect((out + err).replaceAll("\n", "")).not.toMatch(/[\p{Cc}\u202e]/u);
  expect(
    outputs
      .at(-1)!
      .err.split("\n")
      .filter((line) => line !== "").length,
  ).toBe(3 + 1);
});

faultTest("over HTTP: a summary, a dry run, a retry page by page, a drop", async (rig) => {
  const { poisoned } = await withLetters(rig, 12, [0, 2, 4, 6, 8]);
  const settings = readSettings(projectionSettings, { ...rig.stack.serviceEnv(), ...LEASE }, () => "");
  const telemetry = createTelemetry("test", "silent", false);
  await using clickhouse = openClickHouse(settings);
  const nc = await rig.nats();
  await using tenants = await openDirectory(nc);
  const policy = policyOf(tenants.directory, tenants.reader, { site: settings.site, settings: () => readRetention(settings) });
  const parts = { nc, clickhouse, settings, policy, owner: "test", log: telemetry.log };
  const known = (key: string) => (key === rig.key ? { tenant: "default", keyId: "env", scopes: SCOPES } : undefined);
  const app = withContractErrors(deadLettersApi(known, deadLetters(parts)), telemetry.log);
  const headers = { authorization: `Bearer ${rig.key}` };
  const get = async (path: string): Promise<Record<string, unknown>> =>
    (await (await app.request(`/v1/dead-letters${path}`, { headers })).json()) as Record<string, unknown>;
  const post = async (path: string, body: unknown): Promise<Record<string, unknown>> =>
    (await (await app.request(`/v1/dead-letters/${path}`, { method: "POST", headers, body: JSON.stringify(body) })).json()) as Record<
      string,
      unknown
    >;
  expect(await get("?summary=true")).toMatchObject({ letters: 5, counts: [{ reason: "record_refused", letters: 5 }] });
  expect(await post("retry", { all: true, dry_run: true })).toMatchObject({ ready: 5, stored: 0 });
  expect(await post("retry", { all: true })).toMatchObject({ refused: 5, stored: 0 });
  await rig.sql(MEND);
  const first = await post("retry", { filter: { reason: "record_refused" }, limit: 3 });
  expect(first).toMatchObject({ stored: 3, cursor: expect.any(Number) });
  const both = await Promise.all([post("retry", { all: true, limit: 1 }), post("retry", { all: true, limit: 1 })]);
  expect(both.reduce((sum, { stored = 0 }) => sum + (stored as number), 0)).toBe(1);
  expect(await post("drop", { all: true })).toMatchObject({ dropped: 1, cursor: null });
  expect(await letterCount(rig)).toBe(0);
  await rig.assertInvariants(new Set([poisoned[4]!]));
  const health = new Health();
  deadLetterMetrics(telemetry, health, deadLetterWatch(parts.nc));
  expect(await telemetry.registry.metrics()).toContain('relog_dead_letters{component="test"} 0');
  expect(health.ready).toBe(true);
});

faultTest("a tenant's letters are left alone while its rebuild is unfinished, and its rebuild waits for a retry", async (rig) => {
  await withLetters(rig, 4, [1]);
  await rig.sql(MEND);
  const nc = await rig.nats();
  const rebuild = register<unknown>(nc, rebuildKey("main"));
  const unfinished = { phase: "projecting", spec: { tenant: "default" }, generation: 1 };
  const revision = (await rebuild.write(unfinished, 0))!;
  expect((await dead(rig, ["retry", "--all"])).rows).toMatchObject([{ outcome: "skipped", reason: "rebuild_running" }]);
  await rebuild.write({ ...unfinished, phase: "done" }, revision);
  const killed = await dead(rig, ["retry", "--all"], { RELOG_FAILPOINT: "retry-planned" });
  expect(killed.signal).toBe("SIGKILL");
  const settings = readSettings(projectionSettings, { ...rig.stack.serviceEnv(), ...LEASE }, () => "");
  const parts = { nc, settings, owner: "rebuild" };
  const signal = AbortSignal.timeout(30_000);
  await expect(noRetryUnderWay(parts, 1, signal)).rejects.toMatchObject({ code: "dead_letters_busy" });
  expect((await dead(rig, ["retry", "--all"])).rows).toMatchObject([{ outcome: "stored" }]);
  await noRetryUnderWay(parts, 1, signal);
  await rig.assertInvariants();
});

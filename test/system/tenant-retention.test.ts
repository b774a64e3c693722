// A tenant's class of retention, changed while everything runs.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { CLASSES_MAX } from "../../lib/event/retention.ts";
import type { Rig } from "../fault/kit.ts";
import { died, faultTest } from "../fault/kit.ts";
import { ran } from "../fault/relog.ts";
import { changed, ingested, LEASE, tenantKey } from "./tenants-kit.ts";

const DAYS_AGO = (days: number): string => new Date(Date.now() - days * 86_400_000).toISOString();

const classes = (rig: Rig, generation = 1): Promise<string[][]> =>
  rig.sql(
    `SELECT tenant, retention, count() FROM relog_g${generation}.logs GROUP BY ALL ORDER BY ALL SETTINGS optimize_use_projections = 0`,
  );

faultTest("a change counts for new records within seconds and without a restart, for old ones after a rebuild", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  await rig.projector({ ...LEASE, RELOG_RETENTION_DAYS: "30", RELOG_RETENTION_TENANTS: "acme:20" });
  const [acme, other] = [await tenantKey(rig, query, "acme"), await tenantKey(rig, query, "other")];
  const send = async (key: string, days: number) => await ingested(gateway, key, { timestamp: DAYS_AGO(days), message: `${days}` });
  await send(acme, 0);
  await send(acme, 10);
  await send(other, 10);
  await rig.caughtUp();
  expect(await classes(rig)).toEqual([
    ["acme", "20", "2"],
    ["other", "30", "1"],
  ]);

  await changed(query, rig.key, "acme", { retention_days: 7 });
  await waitFor("new records of the new class", async () => {
    await send(acme, 0);
    await rig.caughtUp();
    return (await classes(rig)).some(([tenant, days]) => tenant === "acme" && days === "7") || undefined;
  });
  const partitions = await rig.sql("SELECT DISTINCT partition FROM system.parts WHERE active AND database = 'relog_g1' AND table = 'logs'");
  expect(partitions.some(([partition]) => partition!.startsWith("(7,"))).toBe(true);
  // Old rows keep their class, what is too old for the new one is stored no more: neither is a difference.
  await send(acme, 10);
  await rig.caughtUp();
  expect((await classes(rig)).find(([tenant, days]) => tenant === "acme" && days === "20")![2]).toBe("2");
  await ran(rig, ["verify"]);

  await ran(rig, ["rebuild"]);
  const after = await classes(rig, 2);
  expect(after.map(([tenant, days]) => [tenant, days])).toEqual([
    ["acme", "7"],
    ["other", "30"],
  ]);
  expect(await rig.sql("SELECT count() FROM relog_g2.logs WHERE tenant = 'acme' AND timestamp < now() - INTERVAL 8 DAY")).toEqual([["0"]]);
  await ran(rig, ["verify"]);
  // What left under the shorter class is missed by nobody when the longer one is back.
  await changed(query, rig.key, "acme", { retention_days: null });
  await ran(rig, ["verify", "--generation", "2"]);
  await ran(rig, ["usage", "verify", "--until", new Date(Date.now() + 3_600_000).toISOString()]);
  // By a rebuild it comes back.
  await ran(rig, ["rebuild"]);
  expect((await classes(rig, 3)).map(([tenant, days]) => [tenant, days])).toEqual([
    ["acme", "20"],
    ["other", "30"],
  ]);
  expect(await rig.sql("SELECT count() FROM relog_g3.logs WHERE tenant = 'acme' AND timestamp < now() - INTERVAL 8 DAY")).toEqual([["2"]]);
  await ran(rig, ["verify"]);
});

faultTest("days leave by the class that their rows have", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  await rig.projector(LEASE);
  const [acme, other] = [await tenantKey(rig, query, "acme"), await tenantKey(rig, query, "other")];
  for (const key of [acme, other]) for (const days of [0, 10]) await ingested(gateway, key, { timestamp: DAYS_AGO(days), message: "x" });
  await changed(query, rig.key, "acme", { retention_days: 7 });
  await rig.caughtUp();
  await ran(rig, ["rebuild"]);
  await rig.service("scheduler", LEASE);
  const old = (generation: number) =>
    rig.sql(
      `SELECT tenant, count() FROM relog_g${generation}.logs WHERE timestamp < now() - INTERVAL 8 DAY GROUP BY tenant ORDER BY tenant`,
    );
  await waitFor("acme's old day to leave", async () => ((await old(2)).length === 1 ? true : undefined));
  expect(await old(2)).toEqual([["other", "1"]]);
  expect(await old(1)).toContainEqual(["other", "1"]);
  await ran(rig, ["verify", "--all"]);
});

faultTest("there are few classes: one more than may be is refused, with those that there are", async (rig) => {
  await rig.projector({ ...LEASE, RELOG_RETENTION_DAYS: "400" });
  const query = await rig.service("query");
  await waitFor("the projector's class", async () => (await rig.generations()).retention === "400" || undefined);
  for (let i = 1; i <= CLASSES_MAX; i++) await tenantKey(rig, query, `t${i}`);
  for (let i = 1; i < CLASSES_MAX; i++) await changed(query, rig.key, `t${i}`, { retention_days: i });
  const refused = await changed(query, rig.key, `t${CLASSES_MAX}`, { retention_days: 99 }, 409);
  expect(refused.error).toMatchObject({ code: "too_many_classes" });
  expect(refused.error.message).toContain("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 400");
  const { said } = await ran(rig, ["limits", "set", `t${CLASSES_MAX}`, "retention_days=99"], {}, 1);
  expect(said).toContain("too_many_classes");
  await changed(query, rig.key, `t${CLASSES_MAX}`, { retention_days: 400 });
  // The only tenant of a class may leave it for a new one.
  await changed(query, rig.key, "t1", { retention_days: 99 });
});

for (const step of ["planned", "inserted"]) {
  faultTest(`killed when a plan was ${step}, around a change: exactly once, and of one class`, async (rig) => {
    const [gateway, query] = [await rig.gateway(), await rig.service("query")];
    const acme = await tenantKey(rig, query, "acme");
    await changed(query, rig.key, "acme", { retention_days: 20 });
    const days = [0, 1, 2, 3];
    const lines = days.map((ago) => JSON.stringify({ timestamp: DAYS_AGO(ago), message: `${ago}` })).join("\n");
    const projector = await rig.projector({ ...LEASE, RELOG_FAILPOINT: `${step}:1` });
    await ingested(gateway, acme, lines);
    await died(projector);
    await changed(query, rig.key, "acme", { retention_days: 7 });
    await rig.projector(LEASE);
    await rig.caughtUp();
    expect(await classes(rig)).toEqual([["acme", "20", `${days.length}`]]);
    await ingested(gateway, acme, lines);
    await rig.caughtUp();
    expect(await classes(rig)).toEqual([
      ["acme", "7", `${days.length}`],
      ["acme", "20", `${days.length}`],
    ]);
    await ran(rig, ["verify"]);
  });
}

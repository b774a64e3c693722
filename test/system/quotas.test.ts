// Quotas on a running installation: gateways agree, restarts forget nothing, refusals say until when, warnings come once.

import { connect } from "nats";
import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import { register } from "../../lib/streams/cas.ts";
import type { KeptSnapshot } from "../../lib/usage/keep.ts";
import type { Rig } from "../fault/kit.ts";
import { faultTest } from "../fault/kit.ts";
import { ran } from "../fault/relog.ts";

async function call(rig: Rig, service: Service, line: string, body?: string, key = rig.key) {
  const [method = "", path = ""] = line.split(" ");
  const answer = await fetch(`${service.url}${path}`, {
    method,
    headers: { "x-api-key": key, "content-type": "application/json" },
    ...(body === undefined ? {} : { body }),
  });
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
  return { status: answer.status, retryAfterS: Number(answer.headers.get("retry-after")), body: (await answer.json()) as any };
}

const records = (count: number): string => '{"message":"hello"}\n'.repeat(count);
const send = (rig: Rig, gateway: Service, count: number) => call(rig, gateway, "POST /v1/ingest", records(count));
/** A call that is let in as far as a quota goes, and stores nothing. */
const probe = (rig: Rig, gateway: Service) => call(rig, gateway, "POST /v1/ingest", "{");

async function untilStatus(rig: Rig, gateway: Service, status: number) {
  return await waitFor(`status ${status} of ${gateway.url}`, async () => {
    const answer = await probe(rig, gateway);
    return answer.status === status ? answer : undefined;
  });
}

const limit = (rig: Rig, ...changes: string[]) => ran(rig, ["limits", "set", "default", ...changes]);

/** The warnings in CONTROL: subject -> how many messages it has. */
async function warned(rig: Rig): Promise<Record<string, number>> {
  const manager = await (await rig.nats()).jetstreamManager();
  const { state } = await manager.streams.info(STREAMS.control, { subjects_filter: "control.quotas.>" });
  return state.subjects ?? {};
}

faultTest(
  "gateways agree, refuse with the quota and its end, survive SIGKILL with all they knew, and let in what a raise allows",
  async (rig) => {
    const [first, second] = [await rig.gateway(), await rig.gateway()];
    await ran(rig, ["tenants", "create", "default"]);
    await limit(rig, "records_per_day=10", "records_per_month=100", "time_zone=Asia/Kolkata");
    for (const gateway of [first, second, first, second, first]) expect((await send(rig, gateway, 2)).status).toBe(200);
    for (const gateway of [first, second]) {
      const { body, retryAfterS } = await untilStatus(rig, gateway, 429);
      expect(body.error).toMatchObject({
        code: "quota_exceeded",
        quota: "records_per_day",
        limit: 10,
        used: 10,
        until: expect.stringMatching(/^\d{4}-\d\d-\d\dT00:00:00\+05:30$/),
        message: `records_per_day (10) is used up until ${body.error.until}`,
      });
      // Answers take a moment; the window does not.
      const turnsMs = Date.parse(body.error.until) - Date.now();
      expect(retryAfterS * 1_000).toBeGreaterThanOrEqual(turnsMs);
      expect(retryAfterS).toBeLessThanOrEqual(86_400);
    }
    // What was stored is refused no less than what is new, and over NATS as over HTTP.
    const producer = await connect({ servers: rig.stack.natsUrl, token: rig.key });
    await using _ = { [Symbol.asyncDispose]: () => producer.close() };
    const refusal = (await producer.request("ingest.default", records(1), { timeout: 10_000 })).json<{ error: object }>();
    expect(refusal.error).toMatchObject({ code: 429, err_code: 10_167, quota: "records_per_day", used: 10 });
    // Nobody has written a snapshot: it reads the streams.
    first.kill("SIGKILL");
    await waitFor("its end", () => (first.child.running ? undefined : true));
    await first.restart();
    expect(await probe(rig, first)).toMatchObject({ status: 429, body: { error: { used: 10 } } });
    // Raised: both let calls in, and go on counting where they were. The last call may pass the quota.
    await limit(rig, "records_per_day=13");
    for (const gateway of [first, second]) await untilStatus(rig, gateway, 400);
    expect((await send(rig, second, 5)).status).toBe(200);
    for (const gateway of [first, second]) expect((await untilStatus(rig, gateway, 429)).body.error).toMatchObject({ limit: 13, used: 15 });
    // Two are used up: it is worth trying again when both have turned.
    await limit(rig, "records_per_month=15");
    const month = await waitFor("the month", async () => {
      const answer = await probe(rig, first);
      return answer.body.error.quota === "records_per_month" ? answer : undefined;
    });
    expect(month.body.error.until).toMatch(/^\d{4}-\d\d-01T00:00:00\+05:30$/);
    await limit(rig, "records_per_month=none", "records_per_day=none");
    for (const gateway of [first, second]) await untilStatus(rig, gateway, 400);
  },
);

faultTest("snapshots remember what the streams have let go; a stream that was made again goes on counting", async (rig) => {
  const gateway = await rig.gateway();
  const scheduler = await rig.service("scheduler");
  await ran(rig, ["tenants", "create", "default"]);
  await limit(rig, "bytes_per_month=500");
  for (let i = 0; i < 20; i++) expect((await send(rig, gateway, 3)).status).toBe(200);
  const nc = await rig.nats();
  const manager = await nc.jetstreamManager();
  const kept = async (): Promise<number> => {
    let sum = 0;
    for (const shard of [0, 1]) sum += (await register<KeptSnapshot>(nc, `meter.${shard}`).read())?.value.tenants.default?.[3] ?? 0;
    return sum;
  };
  await waitFor("snapshots of all of it", async () => ((await kept()) === 60 ? true : undefined), 20_000);
  await manager.streams.purge(STREAMS.logs(0));
  await manager.streams.delete(STREAMS.logs(1));
  gateway.kill("SIGKILL");
  await waitFor("its end", () => (gateway.child.running ? undefined : true));
  await gateway.restart();
  expect((await send(rig, gateway, 40)).status).toBe(200);
  // "hello" is five bytes.
  const { body } = await untilStatus(rig, gateway, 429);
  expect(body.error).toMatchObject({ quota: "bytes_per_month", used: 500 });
  expect((await call(rig, scheduler, "GET /readyz")).body.ready).toBe(true);
});

faultTest("a warning at 80 and at 100 percent, each once, whoever looks and is killed; the tenant's admin reads them", async (rig) => {
  const gateway = await rig.gateway();
  const asked = await rig.service("query");
  const schedulers = [await rig.service("scheduler"), await rig.service("scheduler")];
  await ran(rig, ["tenants", "create", "acme"]);
  const admin = (await ran(rig, ["keys", "create", "acme", "--scope", "admin", "--scope", "ingest"])).out.trim();
  await ran(rig, ["limits", "set", "acme", "records_per_day=10", "bytes_per_month=1000"]);
  const add = (count: number) =>
    waitFor("an accepted call", async () =>
      (await call(rig, gateway, "POST /v1/ingest", records(count), admin)).status === 200 ? true : undefined,
    );
  await add(7);
  await add(1);
  const percents = async (): Promise<string[]> => Object.keys(await warned(rig)).map((subject) => subject.replace(/\.\d{8}T\d{6}Z\./, " "));
  await waitFor("the first warning", async () => ((await percents()).length === 1 ? true : undefined));
  schedulers[0]!.kill("SIGKILL");
  await add(4);
  await waitFor("the second warning", async () => ((await percents()).length === 2 ? true : undefined));
  await waitFor("its end", () => (schedulers[0]!.child.running ? undefined : true));
  await schedulers[0]!.restart();
  // Lowered below what is used, and raised: nothing is taken back, and nothing is said twice.
  await ran(rig, ["limits", "set", "acme", "bytes_per_month=70", "records_per_day=100"]);
  await waitFor("the third warning", async () => ((await percents()).length === 3 ? true : undefined));
  await ran(rig, ["limits", "set", "acme", "bytes_per_month=60"]);
  await waitFor("the fourth warning", async () => ((await percents()).length === 4 ? true : undefined));
  const seen = await warned(rig);
  expect([(await percents()).sort(), Object.values(seen)]).toEqual([
    [
      "control.quotas.acme.bytes_per_month 100",
      "control.quotas.acme.bytes_per_month 80",
      "control.quotas.acme.records_per_day 100",
      "control.quotas.acme.records_per_day 80",
    ],
    [1, 1, 1, 1],
  ]);
  const { entries } = (await call(rig, asked, "GET /v1/audit?what=quota_warning", undefined, admin)).body;
  expect(entries.reverse()).toMatchObject([
    { tenant: "acme", what: "quota_warning", who: "relog", data: { quota: "records_per_day", percent: 80, limit: 10, used: 8 } },
    { data: { quota: "records_per_day", percent: 100, limit: 10, used: 12, window: { from: expect.stringMatching(/T00:00:00\+00:00$/) } } },
    { data: { quota: "bytes_per_month", percent: 80, limit: 70, used: 60 } },
    { data: { quota: "bytes_per_month", percent: 100, limit: 60, used: 60 } },
  ]);
  const metrics = await Promise.all(schedulers.map(async ({ url }) => await (await fetch(`${url}/metrics`)).text()));
  // Both were appended after the kill.
  const counts = [...metrics.join("\n").matchAll(/^relog_quota_warnings_total\{percent="100",.*\} (\d+)$/gm)];
  expect(counts.reduce((sum, [, count]) => sum + Number(count), 0)).toBe(2);
});

faultTest(
  "over three nodes of which one is killed, gateways agree on what is stored",
  async (rig) => {
    const gateways = [await rig.gateway(), await rig.gateway()];
    await ran(rig, ["tenants", "create", "default"]);
    await limit(rig, "records_per_day=60");
    let stopped = 0;
    const producing = gateways.map(async (gateway) => {
      for (let i = 0; stopped < 2; i++) {
        const headers = { "x-api-key": rig.key, "idempotency-key": `${gateway.url}-${i}` };
        const { status } = await waitFor(
          "an answer that can be trusted",
          async () => {
            const answer = await fetch(`${gateway.url}/v1/ingest`, { method: "POST", headers, body: records(2) });
            return answer.status < 500 ? answer : undefined;
          },
          60_000,
          100,
        );
        if (i === 5 && gateway === gateways[0]) rig.stack.nats[0]!.kill("SIGKILL");
        if (status === 429) {
          stopped++;
          return;
        }
      }
    });
    await Promise.all(producing);
    const nc = await rig.nats();
    const manager = await nc.jetstreamManager({ checkAPI: false });
    const stored = async (): Promise<number> => {
      const infos = await Promise.all([0, 1].map((shard) => manager.streams.info(STREAMS.logs(shard))));
      return 2 * infos.reduce((sum, { state }) => sum + state.messages, 0);
    };
    // An election may have to end first.
    const total = await waitFor("the streams' leaders", () => stored().catch(() => undefined), 30_000);
    expect(total).toBeGreaterThanOrEqual(60);
    for (const gateway of gateways)
      await waitFor(
        `${total} of ${gateway.url}`,
        async () => ((await probe(rig, gateway)).body.error.used === total ? true : undefined),
        30_000,
      );
    rig.stack.nats[0]!.start();
    await rig.stack.ready();
  },
  { natsNodes: 3 },
);

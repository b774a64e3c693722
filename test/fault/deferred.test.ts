// The releaser dies at each step: every deferred message is in LOGS once and in order, every gap once, beyond any window too.

import { expect, it } from "vitest";
import type { Accounts } from "../../cmd/parts/accounts.ts";
import { Metering } from "../../cmd/parts/meter.ts";
import { Health } from "../../lib/base/health.ts";
import { waitFor } from "../../lib/base/loop.ts";
import { createTelemetry } from "../../lib/base/telemetry.ts";
import type { ReleaseStep } from "../../lib/deferred/release.ts";
import { runReleases } from "../../lib/deferred/release.ts";
import { HEADERS } from "../../lib/event/envelope.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import { appender } from "../../lib/streams/append.ts";
import { deferredAt, deferredByTenant } from "../../lib/streams/deferred.ts";
import { readStream, streamState } from "../../lib/streams/read.ts";
import { died, faultTest } from "./kit.ts";
import { APPEND, QuotaGateway } from "./over-quota-kit.ts";
import { relog } from "./relog.ts";

/** So short that it protects nothing: what is once is so because it was looked for. */
const WINDOW = { dedupeWindowMs: 100, messageBytesMax: 2_000 };
const LEASE = { RELOG_LEASE: "2s" };
const lines = (mark: string): string =>
  Array.from({ length: 20 }, (_, i) => JSON.stringify({ message: `${mark}-${i}`, filler: "x".repeat(200) })).join("\n");

/** The tenant's messages of each LOGS stream, as batch and part. */
async function inLogs({ nc }: QuotaGateway): Promise<string[][]> {
  return await Promise.all(
    [0, 1].map(async (shard) => {
      const { lastSeq } = await streamState(nc, `LOGS_${shard}`);
      if (lastSeq === 0) return [];
      const { messages } = await readStream(nc, `LOGS_${shard}`, 1, { messagesMax: 1_000, bytesMax: 2 ** 23 }, 5_000);
      expect(messages.length).toBe(lastSeq);
      return messages.map(({ header }) => `${header("Relog-Batch")} ${header("Relog-Part")}`);
    }),
  );
}

const emptied = ({ nc }: QuotaGateway) =>
  waitFor("DEFERRED to be empty", async () => ((await deferredByTenant(nc)).size === 0 ? true : undefined), 60_000);

for (const step of ["intended", "published", "published:3", "removed", "done"])
  faultTest(`killed at "${step}", the next one goes on`, async (rig) => {
    const gateway = rig.use(await QuotaGateway.open(rig.stack, WINDOW));
    gateway.decision.is("defer");
    const first = await rig.service("scheduler", { ...LEASE, RELOG_FAILPOINT: `deferred-${step}` });
    const ids: string[] = [];
    for (let i = 0; i < 6; i++) ids.push((await gateway.post(lines(`c${i}`))).json.id);
    await died(first);
    await rig.service("scheduler", LEASE);
    await emptied(gateway);
    const logs = await inLogs(gateway);
    const wanted = ids.flatMap((id) => [1, 2, 3].map((part) => `${id} ${part}/3`));
    expect(logs.flat().toSorted()).toEqual(wanted.toSorted());
    for (const shard of logs) expect(shard).toEqual(shard.toSorted((a, b) => wanted.indexOf(a) - wanted.indexOf(b)));
    await rig.projector();
    await rig.caughtUp();
    expect(await rig.sql("SELECT count(), uniqExact(batch, line), uniqExact(body) FROM relog_g1.logs")).toEqual([["120", "120", "120"]]);
  });

for (const step of ["intended", "gap", "removed", "done"] satisfies ReleaseStep[])
  faultTest(
    `an expiry that breaks off at "${step}" leaves one gap record`,
    async (rig) => {
      const gateway = rig.use(await QuotaGateway.open(rig.stack, WINDOW));
      gateway.decision.is("defer");
      gateway.decision.room = { records: 0, bytes: 0 };
      for (let i = 0; i < 3; i++) await gateway.post(lines(`c${i}`));
      const breaks = {
        ...gateway.releasePorts(),
        failpoint(at: ReleaseStep) {
          if (at === step) throw new Error(`broken off at ${at}`);
        },
      };
      await expect(runReleases(breaks, 1, AbortSignal.timeout(30_000))).rejects.toThrow(`broken off at ${step}`);
      {
        await using _ = gateway.releaser(1);
        await emptied(gateway);
      }
      expect((await inLogs(gateway)).flat().length).toBe(1);
    },
    { clickhouse: false },
  );

faultTest(
  "an idempotency key that is used again after its window is another call, and released as one",
  async (rig) => {
    const gateway = rig.use(await QuotaGateway.open(rig.stack, WINDOW));
    gateway.decision.is("defer");
    const first = (await gateway.post('{"message":"one"}', "k")).json;
    const second = await waitFor("the window to pass", async () => {
      const { status, json } = await gateway.post('{"message":"two"}', "k");
      return status === 200 ? json : undefined;
    });
    await using _ = gateway.releaser();
    await emptied(gateway);
    expect((await inLogs(gateway)).flat().toSorted()).toEqual([`${first.id} 1/1`, `${second.id} 1/1`].toSorted());
  },
  { clickhouse: false },
);

for (const { name, windowMs, body, logs } of [
  { name: "while its id is known", windowMs: 600_000, body: "same", logs: 1 },
  { name: "when its id is long forgotten", windowMs: 1_000, body: "same", logs: 1 },
  { name: "and another body is another call, while its id is known", windowMs: 600_000, body: "other", logs: 2 },
  { name: "and another body is another call, when its id is long forgotten", windowMs: 1_000, body: "other", logs: 2 },
])
  faultTest(
    `a call that was deferred and repeated at once at a gateway that did not know: ${name}`,
    async (rig) => {
      const gateway = rig.use(await QuotaGateway.open(rig.stack, { dedupeWindowMs: windowMs, messageBytesMax: 2_000 }));
      gateway.decision.is("defer");
      const { id } = (await gateway.post(lines("c"), "k")).json;
      // What the other gateway stores is the same call as another batch.
      const append = appender(gateway.nc, APPEND);
      const repeat = newBatchId(Date.now());
      const changed: Record<string, string> = { [HEADERS.batch]: repeat, ...(body === "same" ? {} : { [HEADERS.bodyHash]: "0" }) };
      let lastMs = 0;
      for (const [seq, part] of [1, 2, 3].entries()) {
        const message = (await deferredAt(gateway.nc, seq + 1))!;
        expect([message.header(HEADERS.batch), message.header(HEADERS.part)]).toEqual([id, `${part}/3`]);
        const headers = message.pairs().map(([name, value]): [string, string] => [name, changed[name] ?? value]);
        await append({ shard: Number(message.subject.split(".")[1]), tenant: "default", headers, payload: message.payload });
        lastMs = message.storedMs;
      }
      await waitFor("the window to pass", async () => (windowMs > 1_000 || Date.now() - lastMs > windowMs ? true : undefined));
      await using _ = gateway.releaser();
      await emptied(gateway);
      const found = (await inLogs(gateway)).flat();
      const wanted = (logs === 1 ? [repeat] : [repeat, id]).flatMap((batch) => [1, 2, 3].map((part) => `${batch} ${part}/3`));
      expect(found.toSorted()).toEqual(wanted.toSorted());
    },
    { clickhouse: false },
  );

faultTest("`relog deferred list` says what waits, of whom and until when", async (rig) => {
  const gateway = rig.use(await QuotaGateway.open(rig.stack, { messageBytesMax: 2_000 }));
  gateway.decision.is("defer");
  const { json } = await gateway.post(lines("c"), undefined, "acme");
  await gateway.post('{"message":"m"}', undefined, "beta");
  const { code, out, said } = await relog(rig, ["deferred", "list", "--json"], { RELOG_DEFER_GRACE: "7d" }).ended;
  expect([code, said]).toEqual([0, out]);
  const [acme, beta] = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, string>);
  expect(acme).toMatchObject({ tenant: "acme", messages: 3 });
  expect(beta).toMatchObject({ tenant: "beta", messages: 1 });
  expect(Date.parse(acme!.until!) - Date.parse(acme!.oldest!)).toBe(7 * 86_400_000);
  expect(json.parts.length).toBe(3);
});

it("what a tenant has left is not known until usage is read; a deleted one has nothing", () => {
  const known = (tenant: string) => ({ account: { status: tenant === "gone" ? "deleted" : "active", quotas: {} } });
  const directory = { known, accounts: () => [], onChange: () => undefined } as unknown as Accounts["directory"];
  const metering = new Metering({ directory } as Accounts, 1, false, new Health(), createTelemetry("scheduler", "silent", false));
  const [all, nothing] = [
    { records: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY },
    { records: 0, bytes: 0 },
  ];
  expect([metering.release.left("acme"), metering.release.left("gone")]).toEqual([undefined, nothing]);
  metering.meter.ready = true;
  expect([metering.release.left("acme"), metering.release.left("gone")]).toEqual([all, nothing]);
});

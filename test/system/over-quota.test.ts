// Over quota, on real engines: what is refused, dropped or deferred, what is released in which order, and what the receipts say.

import { afterAll, beforeAll, expect, it } from "vitest";
import { purgeDeferredTenant } from "../../cmd/parts/deferred.ts";
import { waitFor } from "../../lib/base/loop.ts";
import { warningOf } from "../../lib/deferred/metrics.ts";
import { startService } from "../../lib/devstack/service.ts";
import type { Stack } from "../../lib/devstack/stack.ts";
import { startStack } from "../../lib/devstack/stack.ts";
import { timeOfBatchId } from "../../lib/event/ids.ts";
import { deferredByTenant, deferredState } from "../../lib/streams/deferred.ts";
import { readStream, streamState } from "../../lib/streams/read.ts";
import { QuotaGateway } from "../fault/over-quota-kit.ts";

const owned = new AsyncDisposableStack();
let stack: Stack;
let gateway: QuotaGateway;
beforeAll(async () => {
  stack = owned.use(await startStack({ env: process.env }));
  gateway = owned.use(await QuotaGateway.open(stack, { messageBytesMax: 2_000, gapIntervalMs: 300 }));
  owned.use(await startService("projector", stack));
});
afterAll(() => owned.disposeAsync());

let tenants = 0;
/** Each test has a tenant of its own. */
const newTenant = (): string => `t${tenants++}`;
const lines = (mark: string, count: number): string =>
  Array.from({ length: count }, (_, i) => JSON.stringify({ message: `${mark}-${i}`, filler: "x".repeat(200) })).join("\n");

async function sql(statement: string): Promise<Record<string, string>[]> {
  const { url, user, password } = stack.clickhouse!;
  const headers = { "X-ClickHouse-User": user, "X-ClickHouse-Key": password };
  const answer = await fetch(`${url}/?output_format_json_quote_64bit_integers=1`, {
    ...{ method: "POST", headers },
    body: `${statement} FORMAT JSONEachRow`,
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Record<string, string>]));
}

/** The bodies of a tenant's records in the table, when there are as many as expected. */
async function bodies(tenant: string, expected: number): Promise<string[]> {
  const rows = await waitFor(`${expected} rows of ${tenant}`, async () => {
    const found = await sql(`SELECT body FROM relog_g1.logs WHERE tenant = '${tenant}' ORDER BY observed_timestamp, batch, line`);
    return found.length >= expected ? found : undefined;
  });
  return rows.map(({ body }) => body!);
}

const backlogOf = async (tenant: string): Promise<number> => (await deferredByTenant(gateway.nc)).get(tenant) ?? 0;
const emptied = (tenant: string) =>
  waitFor(`${tenant} to have nothing deferred`, async () => ((await backlogOf(tenant)) === 0 ? true : undefined));

interface Stored {
  readonly batch: string;
  readonly part: string;
  readonly deferred: string;
  readonly observed: number;
}

/** A tenant's messages of the LOGS streams as they lie there. */
async function inLogs(tenant: string): Promise<Stored[][]> {
  return await Promise.all(
    [0, 1].map(async (shard) => {
      const found: Stored[] = [];
      const { lastSeq } = await streamState(gateway.nc, `LOGS_${shard}`);
      for (let next = 1; next <= lastSeq; ) {
        const { messages } = await readStream(gateway.nc, `LOGS_${shard}`, next, { messagesMax: 500, bytesMax: 2 ** 22 }, 5_000);
        for (const { subject, header } of messages) {
          const [batch, part, deferred] = [header("Relog-Batch"), header("Relog-Part"), header("Relog-Deferred")];
          if (subject.endsWith(`.${tenant}`)) found.push({ batch, part, deferred, observed: Number(header("Relog-Observed")) });
        }
        next += messages.length;
      }
      return found;
    }),
  );
}

it("deferred records wait with a receipt, and are released in order, each once, observed when they are released", async () => {
  const tenant = newTenant();
  gateway.decision.is("defer");
  const answers = [];
  for (let i = 0; i < 12; i++) answers.push(await gateway.post(lines(`call${i}`, 20), i % 2 ? `k${i}` : undefined, tenant));
  const until = new Date(timeOfBatchId(answers[0]!.json.id) + 7 * 86_400_000).toISOString();
  expect(answers[0]).toMatchObject({ status: 200, json: { stream: "DEFERRED", accepted: 20, rejected: 0, errors: [] } });
  expect(answers[0]!.json.deferred).toEqual({ reason: "records_per_day (1000) is used up until 2099-01-01T00:00:00Z", until });
  expect(answers[0]!.json.parts.length).toBeGreaterThan(1);
  const waiting = await gateway.receipt(answers[5]!.json.id, tenant);
  expect(waiting).toMatchObject({
    status: 200,
    json: { complete: true, accepted: 20, projected: [{ projected: false }], deferred: { messages: 3 } },
  });
  expect((await gateway.receipt(answers[5]!.json.id, "another")).status).toBe(404);

  // Room for some first: what is left stays in order behind it.
  gateway.decision.room = { records: 70, bytes: Number.POSITIVE_INFINITY };
  await using _ = gateway.releaser();
  await waitFor("the room to be used", () => (gateway.decision.room.records <= 0 ? true : undefined));
  const before = (await inLogs(tenant)).flat().length;
  expect(gateway.decision.room.records).toBeGreaterThan(-20);
  expect([before > 0, (await backlogOf(tenant)) > 0]).toEqual([true, true]);
  gateway.decision.is("within");
  const releasedMs = Date.now();
  gateway.decision.room = { records: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY };
  await emptied(tenant);
  const order = answers.map(({ json }) => json.id);
  for (const shard of await inLogs(tenant)) {
    const places = shard.map(({ batch, part }) => order.indexOf(batch) * 100 + Number(part.split("/")[0]));
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(shard.every(({ deferred }) => Number(deferred) > 0)).toBe(true);
    expect(shard.at(-1)!.observed).toBeGreaterThanOrEqual(releasedMs);
  }
  const wanted = order.flatMap((_id, call) => Array.from({ length: 20 }, (_, i) => `call${call}-${i}`));
  expect((await bodies(tenant, 240)).toSorted()).toEqual(wanted.toSorted());
  const [observed] = await sql(
    `SELECT toUnixTimestamp64Milli(max(observed_timestamp)) AS ms FROM relog_g1.logs WHERE tenant = '${tenant}'`,
  );
  expect(Number(observed!.ms)).toBeGreaterThanOrEqual(releasedMs);
  const released = await waitFor("the receipt to say projected", async () => {
    const receipt = await gateway.receipt(order[11]!, tenant);
    return receipt.json.projected?.[0]?.projected ? receipt.json : undefined;
  });
  expect(released).toMatchObject({ complete: true, accepted: 20, dead_letters: [] });
  expect(released.deferred).toBeUndefined();
  expect(Date.parse(released.parts[0].deferred_at)).toBeLessThanOrEqual(Date.parse(released.parts[0].stored_at));
});

it("while something of a tenant is deferred, its new calls are too; others' are not; a steady producer's backlog ends", async () => {
  const [tenant, other] = [newTenant(), newTenant()];
  gateway.decision.is("defer");
  gateway.decision.room = { records: 0, bytes: 0 };
  for (let i = 0; i < 30; i++) await gateway.post(lines(`b${i}`, 20), undefined, tenant);
  gateway.decision.is("within");
  const behind = (await gateway.post(lines("behind", 1), undefined, tenant)).json;
  expect(behind).toMatchObject({ stream: "DEFERRED", deferred: { reason: "records deferred earlier are stored first" } });
  expect((await gateway.post(lines("o", 1), undefined, other)).json.stream).toMatch(/^LOGS_/);
  await using _ = gateway.releaser();
  gateway.decision.room = { records: 1e9, bytes: 1e12 };
  let sent = 0;
  const direct = await waitFor("a call to be stored at once", async () => {
    const { json } = await gateway.post(lines(`steady${sent++}`, 1), undefined, tenant);
    return json.deferred === undefined ? json : undefined;
  });
  expect(direct.stream).toMatch(/^LOGS_/);
  const found = await bodies(tenant, 601 + sent);
  expect([found.length, new Set(found).size]).toEqual([601 + sent, 601 + sent]);
  const steady = found.filter((body) => body.startsWith("steady")).map((body) => Number(/\d+/.exec(body)![0]));
  expect(steady).toEqual(steady.toSorted((a, b) => a - b));
});

it("a repeated key gets the first receipt: stored before, while it waits, and when it is released", async () => {
  const tenant = newTenant();
  gateway.decision.is("within");
  const stored = (await gateway.post(lines("a", 20), "a", tenant)).json;
  for (const kind of ["defer", "drop", "reject"] as const) {
    gateway.decision.is(kind);
    expect((await gateway.post(lines("a", 20), "a", tenant)).json).toEqual({ ...stored, duplicate: true });
  }
  gateway.decision.room = { records: 0, bytes: 0 };
  gateway.decision.is("defer");
  const waiting = (await gateway.post(lines("b", 20), "b", tenant)).json;
  for (const kind of ["defer", "drop", "reject", "within"] as const) {
    gateway.decision.is(kind);
    const again = (await gateway.post(lines("b", 20), "b", tenant)).json;
    expect(again).toMatchObject({ id: waiting.id, stream: "DEFERRED", seq: waiting.seq, accepted: 20, duplicate: true });
  }
  gateway.decision.is("defer");
  expect((await gateway.post(lines("c", 1), "b", tenant)).json.error.code).toBe("idempotency_key_reused");
  gateway.decision.room = { records: 1e9, bytes: 1e12 };
  await using _ = gateway.releaser();
  await emptied(tenant);
  for (const kind of ["defer", "drop", "reject", "within"] as const) {
    gateway.decision.is(kind);
    const again = (await gateway.post(lines("b", 20), "b", tenant)).json;
    expect(again).toMatchObject({ id: waiting.id, stream: expect.stringMatching(/^LOGS_/), accepted: 20, duplicate: true });
  }
  const found = await bodies(tenant, 40);
  expect([found.length, new Set(found).size]).toEqual([40, 40]);
});

it("reject answers 429 with the reason and until when", async () => {
  gateway.decision.is("reject");
  const refused = await gateway.post(lines("r", 1), undefined, newTenant());
  expect([refused.status, refused.retryAfter, refused.json.error.code]).toEqual([429, "77", "quota_exceeded"]);
  expect(refused.json.error.message).toContain("records_per_day (1000)");
});

it("what waited longer than the grace leaves a gap record", async () => {
  const tenant = newTenant();
  gateway.decision.is("defer");
  gateway.decision.room = { records: 0, bytes: 0 };
  for (let i = 0; i < 3; i++) await gateway.post(lines(`e${i}`, 20), undefined, tenant);
  await using _ = gateway.releaser(1);
  await emptied(tenant);
  await bodies(tenant, 1);
  const [gap] = await sql(`SELECT * FROM relog_g1.logs WHERE tenant = '${tenant}' AND event_name = 'relog.gap'`);
  expect(gap).toMatchObject({
    service: "relog",
    severity_number: 13,
    attributes: { "gap.records": "60", "gap.calls": "3", "gap.reason": "grace" },
  });
  expect(gap!.body).toMatch(/^60 records \(\d+ bytes\) were not stored between \S+Z and \S+Z: deferred when they came/);
});

it("dropped calls are counted before the answer, and become gap records of the same sums; over NATS too", async () => {
  const tenant = newTenant();
  gateway.decision.is("drop");
  const sent = await Promise.all(
    Array.from({ length: 60 }, async (_, i) => {
      const body = `${lines(`d${i}`, 1 + (i % 5))}\nbad`;
      if (i % 3 > 0) return (await gateway.post(body, i % 2 ? `d${i}` : undefined, tenant)).json;
      const request = {
        subject: `ingest.${tenant}`,
        payload: Buffer.from(body),
        header: () => undefined,
        reply: "_INBOX.x",
        sender: undefined,
      };
      return await gateway.native(request);
    }),
  );
  const reason = "records_per_day (1000) is used up until 2099-01-01T00:00:00Z";
  for (const [i, answer] of sent.entries())
    expect(answer).toMatchObject({
      stream: "KV_projections",
      accepted: 1 + (i % 5),
      rejected: 1,
      dropped: { records: 1 + (i % 5), reason },
    });
  const query = `SELECT batch, body, attributes FROM relog_g1.logs WHERE tenant = '${tenant}' AND event_name = 'relog.gap'`;
  const records = (row: Record<string, string>): number => Number((row.attributes as unknown as Record<string, string>)["gap.records"]);
  const gaps = await waitFor("gap records of all", async () => {
    const rows = await sql(query);
    return rows.reduce((sum, row) => sum + records(row), 0) >= 180 ? rows : undefined;
  });
  expect(gaps.reduce((sum, row) => sum + records(row), 0)).toBe(180);
  expect(gaps[0]!.attributes).toMatchObject({ "gap.reason": "quota", "gap.quota": "records_per_day" });
  expect(gaps[0]!.body).toContain(`: ${reason}`);
  expect(new Set(gaps.map(({ batch }) => batch))).toEqual(new Set(sent.map(({ id }) => id)));
  expect((await gateway.receipt(gaps[0]!.batch!, tenant)).json).toMatchObject({ stored: true, source: "relog" });
});

it("the receipt of what is still being counted says so", async () => {
  await using slow = await QuotaGateway.open(stack);
  slow.decision.is("drop");
  const tenant = newTenant();
  const { json } = await slow.post(lines("s", 3), undefined, tenant);
  expect((await slow.receipt(json.id, tenant)).json).toMatchObject({ id: json.id, stored: false, dropped: { records: 3, calls: 1 } });
  expect((await slow.receipt(json.id, "another")).status).toBe(404);
});

it("a tenant that is deleted leaves nothing deferred", async () => {
  const tenant = newTenant();
  gateway.decision.is("defer");
  await gateway.post(lines("p", 20), undefined, tenant);
  expect(await purgeDeferredTenant(gateway.nc, tenant)).toBe(3);
  expect([await backlogOf(tenant), await purgeDeferredTenant(gateway.nc, tenant)]).toEqual([0, 0]);
});

it("a full DEFERRED is 429; nothing is accepted that cannot be kept, and health says it before", async () => {
  await using small = await startStack({ env: process.env, clickhouse: false });
  await using house = await QuotaGateway.open(small, { deferredBytesMax: 100_000 });
  house.decision.is("defer");
  const answers: number[] = [];
  const full = await waitFor("DEFERRED to be full", async () => {
    const answer = await house.post(lines(`f${Math.random()}`, 50), undefined, "acme");
    answers.push(answer.status);
    return answer.status === 200 ? undefined : answer;
  });
  expect([full.status, full.json.error.code, full.retryAfter]).toEqual([429, "quota_exceeded", "60"]);
  expect(full.json.error.message).toContain("RELOG_DEFERRED_BYTES_MAX");
  const state = await deferredState(house.nc);
  expect(state.messages).toBe(answers.length - 1);
  expect(warningOf(state)).toContain("of 100000 bytes (RELOG_DEFERRED_BYTES_MAX)");
  expect(warningOf({ ...state, bytes: 80_000 })).toBeUndefined();
});

// Live tails while engines die, readers are slow and the process leaves.

import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { TailReader } from "../contract/tail-kit.ts";
import type { Rig } from "./kit.ts";
import { faultTest } from "./kit.ts";

const markersOf = (tail: TailReader): string[] => tail.records.map(({ attributes }) => attributes.marker as string);
/** A figure of the service's metrics, over all its labels; 0 when there is none. */
async function metric(service: Service, pattern: string): Promise<number> {
  const text = await (await fetch(`${service.url}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${pattern} (\\S+)$`, "gm"))].reduce((sum, [, value]) => sum + Number(value), 0);
}
const skipped = (service: Service): Promise<number> => metric(service, 'relog_tail_skipped_total\\{reason="unopened".*\\}');
const running = (service: Service): Promise<number> => metric(service, "relog_tails_running\\{.*\\}");

const ackedMarkers = (rig: Rig): string[] => rig.ledger.of("acked").flatMap(({ markers }) => markers);

/** Every acknowledged record came, each once. */
async function assertWhole(rig: Rig, tail: TailReader): Promise<void> {
  const acked = ackedMarkers(rig);
  await tail.until(acked.length);
  const seen = markersOf(tail);
  expect(seen.length).toBe(new Set(seen).size);
  const have = new Set(seen);
  expect(acked.filter((marker) => !have.has(marker))).toEqual([]);
  expect(tail.lines.filter((line) => line.batch === undefined)).toEqual([]);
}

faultTest("ClickHouse is killed: tails go on, and new ones begin", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  using tail = await TailReader.open(query.url, rig.key);
  await rig.produce(gateway.url, { batches: 5 });
  rig.stack.clickhouse!.child.kill("SIGKILL");
  await rig.stack.clickhouse!.child.exited;
  using later = await TailReader.open(query.url, rig.key, "?since=1h");
  await rig.produce(gateway.url, { batches: 20 });
  await assertWhole(rig, tail);
  await assertWhole(rig, later);
});

// One node that comes back, and three of which one after the other dies: what a replica that lags does not have yet comes later.
for (const natsNodes of [1, 3] as const)
  faultTest(
    `of ${natsNodes} nodes of NATS one is killed and comes back, under load: nothing acknowledged is left out or repeated`,
    async (rig) => {
      // What is produced comes as fast as the machine lets it, which may be more than a tail sends by default.
      const [gateway, query] = [await rig.gateway(), await rig.service("query", { RELOG_TAIL_RECORDS_PER_SECOND: "100000" })];
      using tail = await TailReader.open(query.url, rig.key);
      using events = await TailReader.events(query.url, rig.key);
      const stop = new AbortController();
      const producing = rig.produce(gateway.url, { batches: 1e9, concurrency: 2, signal: stop.signal });
      const more = async (what: string): Promise<void> => {
        const before = rig.ledger.of("acked").length;
        await waitFor(what, () => (rig.ledger.of("acked").length > before + 30 ? true : undefined), 60_000);
      };
      for (let round = 0; round < 2; round++) {
        await more("acknowledgements");
        const node = rig.stack.nats[round % natsNodes]!;
        node.kill("SIGKILL");
        await node.exited;
        if (natsNodes > 1) await more("acknowledgements without it");
        node.start();
        await rig.stack.ready();
      }
      await more("acknowledgements after it came back");
      stop.abort();
      await producing;
      await assertWhole(rig, tail);
      await assertWhole(rig, events);
    },
    { natsNodes, clickhouse: true },
  );

faultTest("the query service is killed: a reader goes on with Last-Event-ID", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  using first = await TailReader.events(query.url, rig.key);
  await rig.produce(gateway.url, { batches: 10 });
  await first.until(25);
  query.kill("SIGKILL");
  await query.child.exited;
  await rig.produce(gateway.url, { batches: 10 });
  await query.restart();
  using second = await TailReader.events(query.url, rig.key, "", first.lastId);
  const all = ackedMarkers(rig);
  await second.until(all.length - first.records.length);
  expect([...markersOf(first), ...markersOf(second)].toSorted()).toEqual(all.toSorted());
});

faultTest("a reader that does not read is told what it missed; another gets everything", async (rig) => {
  const gateway = await rig.gateway();
  const query = await rig.service("query", { RELOG_TAIL_QUEUE_RECORDS_MAX: "50", RELOG_TAIL_LAG_MAX: "500ms" });
  using slow = await TailReader.open(query.url, rig.key);
  using fast = await TailReader.open(query.url, rig.key);
  slow.pause();
  await waitFor(
    "records to be skipped",
    async () => {
      await rig.produce(gateway.url, { batches: 4, records: 100, padding: 20_000 });
      return (await skipped(query)) > 100 ? true : undefined;
    },
    60_000,
  );
  await assertWhole(rig, fast);
  slow.resume();
  const all = ackedMarkers(rig).length;
  const said = (): number =>
    slow.lines.reduce((sum, line) => sum + (line.skipped === undefined ? 0 : line.skipped.skipped + line.skipped.unread), 0);
  await waitFor("every record to be sent or said", () => (slow.records.length + said() === all ? true : undefined), 30_000);
  expect(slow.records.length).toBeLessThan(all);
  expect(new Set(markersOf(slow)).size).toBe(slow.records.length);
});

faultTest("a rate that a tail asks for is kept, and the rest is said", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  using tail = await TailReader.open(query.url, rig.key, "?limit_per_second=10");
  await rig.produce(gateway.url, { batches: 1, records: 500 });
  const said = (): number => tail.lines.reduce((sum, line) => sum + (line.skipped?.skipped ?? 0), 0);
  await waitFor("every record to be sent or said", () => (tail.records.length + said() === 500 ? true : undefined));
  expect(said()).toBeGreaterThan(400);
});

faultTest("SIGTERM: tails end with a place to go on from, also for readers that do not read, and the process leaves", async (rig) => {
  const [gateway, query] = [await rig.gateway(), await rig.service("query")];
  using lines = await TailReader.open(query.url, rig.key);
  using events = await TailReader.events(query.url, rig.key);
  using stuck = await TailReader.open(query.url, rig.key);
  stuck.pause();
  await rig.produce(gateway.url, { batches: 3 });
  await Promise.all([assertWhole(rig, lines), assertWhole(rig, events)]);
  query.kill("SIGTERM");
  expect([await lines.end(), await events.end()]).toEqual(["clean", "clean"]);
  const { code, signal } = await query.child.exited;
  expect([code, signal]).toEqual([0, null]);
  expect(lines.lines.at(-1)).toMatchObject({ end: { why: "this process is leaving", cursor: expect.stringMatching(/^v1~/) } });
  expect(events.events.at(-1)).toMatchObject({ event: "end" });
  await rig.produce(gateway.url, { batches: 1, records: 3 });
  await query.restart();
  using next = await TailReader.open(query.url, rig.key, "", { "last-event-id": lines.lines.at(-1).end.cursor });
  await next.until(3);
  expect(markersOf(next)).toEqual(ackedMarkers(rig).slice(-3));
});

faultTest("a tail lasts as long as it may; one whose reader takes nothing is cut off", async (rig) => {
  const gateway = await rig.gateway();
  const query = await rig.service("query", { RELOG_TAIL_LIFE_MAX: "2s" });
  using tail = await TailReader.open(query.url, rig.key);
  expect(await tail.end()).toBe("clean");
  expect(tail.lines.at(-1)).toMatchObject({ end: { why: expect.stringContaining("RELOG_TAIL_LIFE_MAX") } });
  const impatient = await rig.service("query", { RELOG_TAIL_STALL_TIME: "1s" });
  using stuck = await TailReader.open(impatient.url, rig.key);
  stuck.pause();
  expect(await running(impatient)).toBe(1);
  await waitFor(
    "it to be cut off",
    async () => {
      await rig.produce(gateway.url, { batches: 4, records: 100, padding: 20_000 });
      return (await running(impatient)) === 0 ? true : undefined;
    },
    60_000,
  );
});

faultTest("a tenant that is disabled gets nothing of what waited, and a connection that nobody reads is closed", async (rig) => {
  const gateway = await rig.gateway();
  const query = await rig.service("query", { RELOG_TAIL_LAG_MAX: "300ms" });
  using stuck = await TailReader.open(query.url, rig.key);
  using idle = await TailReader.open(query.url, rig.key, "?contains=nothing like that");
  stuck.pause();
  await waitFor(
    "its queue to be full",
    async () => {
      await rig.produce(gateway.url, { batches: 4, records: 100, padding: 20_000 });
      return (await skipped(query)) > 0 ? true : undefined;
    },
    60_000,
  );
  const sent = await metric(query, "relog_tail_records_total\\{.*\\}");
  // The bootstrap key operates on; as a reader it is its tenant's.
  const answer = await fetch(`${query.url}/v1/tenants/default/disable`, { method: "POST", headers: { "x-api-key": rig.key }, body: "{}" });
  expect(answer.status).toBe(200);
  expect(await idle.end()).toBe("clean");
  expect(idle.lines).toEqual([{ error: expect.objectContaining({ code: "unauthenticated" }) }]);
  await waitFor("both to be gone", async () => ((await running(query)) === 0 ? true : undefined));
  stuck.resume();
  expect(await stuck.end()).toBe("broken");
  expect(stuck.records.length).toBeLessThan(sent);
});

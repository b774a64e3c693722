// Fault 13: what cannot be projected becomes one dead letter, its neighbours are stored, the shard goes on.

import { expect } from "vitest";
import { encodeBlock } from "../../lib/event/batch.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import type { Rig } from "./kit.ts";
import { died, faultTest, LONG, scaled } from "./kit.ts";
import { rawBlock, rawMessage, spoiled } from "./messages.ts";

const LEASE = { RELOG_LEASE: "2s" };

async function withNeighbours(rig: Rig, publish: () => Promise<unknown>, env: Record<string, string> = {}): Promise<void> {
  const gateway = await rig.gateway();
  await rig.produce(gateway.url, { batches: 6, days: 2 });
  await publish();
  await rig.produce(gateway.url, { batches: 6, days: 2 });
  await rig.projector({ ...LEASE, ...env });
  await rig.assertInvariants();
  // The shard goes on.
  await rig.produce(gateway.url, { batches: 4 });
  await rig.assertInvariants();
}

const REFUSE = "ALTER TABLE relog_g1.logs ADD CONSTRAINT refuse CHECK position(body, 'POISON') = 0";

for (const killed of [false, true]) {
  faultTest(`one record that the engine refuses${killed ? ", and a kill behind its dead letter" : ""}`, async (rig) => {
    const gateway = await rig.gateway();
    await (await rig.projector(LEASE)).child.stop();
    await rig.sql(REFUSE);
    await rig.produce(gateway.url, { batches: 5, days: 3 });
    const { body, markers } = rig.batch(20, 0, 10);
    const lines = body.trim().split("\n");
    lines[7] = lines[7]!.replace('"hello ', '"POISON ');
    const call = rig.ledger.open("poisoned", markers);
    await rig.send(gateway.url, lines.join("\n"), call);
    await rig.produce(gateway.url, { batches: 5, days: 3 });
    if (killed) await died(await rig.projector({ ...LEASE, RELOG_FAILPOINT: "parked:1" }).catch(() => rig.services.at(-1)!));
    await rig.projector(LEASE);
    await rig.assertInvariants(new Set([markers[7]!]));
    expect(await rig.deadLetters()).toMatchObject([
      { reason: "record_refused", lines: "7", batch: call.receipt!.id, sequence: call.receipt!.seq },
    ]);
  });
}

const CASES: readonly (readonly [name: string, reason: string, publish: (rig: Rig) => Promise<unknown>])[] = [
  ["garbage without headers", "envelope_invalid", (rig) => rig.publishRaw("garbage")],
  ["nothing at all", "envelope_invalid", (rig) => rig.publishRaw("")],
  ["an unknown schema version", "schema_unknown", (rig) => rawMessage(rig, { schema: 2 })],
  ["another tenant in the header", "tenant_mismatch", (rig) => rawMessage(rig, { tenant: "other" })],
  ["no zstd frame", "frame_invalid", (rig) => rawMessage(rig, {}, () => Buffer.from("not a frame at all"))],
  ["a frame whose content is cut", "block_invalid", (rig) => rawMessage(rig, {}, (frame) => frame.subarray(0, frame.length - 10))],
  ["a frame with flipped bits", "block_invalid", (rig) => rawMessage(rig, {}, (frame) => spoiled(frame, frame.length >> 1))],
  ["more records in the envelope than in the block", "records_missing", (rig) => rawMessage(rig, { records: 7, accepted: 7 })],
  ["a thousand million records in the envelope", "envelope_invalid", (rig) => rawMessage(rig, { records: 1_000_000_000 })],
  ["line numbers beyond 32 bits", "envelope_invalid", (rig) => rawMessage(rig, { firstLine: 2 ** 32 })],
  ["a time range that is upside down", "envelope_invalid", (rig) => rawMessage(rig, { minTimestamp: 2n, maxTimestamp: 1n })],
  ["times beyond 63 bits", "envelope_invalid", (rig) => rawMessage(rig, { maxTimestamp: 9_999_999_999_999_999_999n })],
];

for (const [name, reason, publish] of CASES) {
  faultTest(`a message with ${name} is one dead letter: ${reason}`, async (rig) => {
    await withNeighbours(rig, () => publish(rig));
    expect((await rig.deadLetters()).map((letter) => letter.reason)).toEqual([reason]);
  });
}

faultTest("a message as large as NATS takes, which a dead letter's headers make larger", async (rig) => {
  const nc = await rig.nats();
  await withNeighbours(rig, () => rig.publishRaw(Buffer.alloc(nc.info!.max_payload - 200, "x")));
  expect(await rig.deadLetters()).toMatchObject([{ reason: "envelope_invalid" }]);
});

// An envelope that speaks of another batch or time than its block: reading back finds nothing of it, however often it is inserted.
for (const [name, fields] of [
  ["another batch id", { batch: newBatchId(Date.now()) }],
  ["another time range", { minTimestamp: 1n, maxTimestamp: 2n }],
] as const) {
  faultTest(`a block whose envelope names ${name} does not multiply when its plan is settled`, async (rig) => {
    const gateway = await rig.gateway();
    await rawMessage(rig, fields);
    const first = await rig.projector({ ...LEASE, RELOG_FAILPOINT: "inserted:1" }).catch(() => rig.services.at(-1)!);
    await died(first);
    await rig.projector(LEASE);
    await rig.produce(gateway.url, { batches: 4 });
    await rig.assertInvariants();
    expect(await rig.count("body LIKE 'raw %'")).toBeLessThanOrEqual(3 * 3);
    expect((await rig.deadLetters()).length).toBe(1);
  });
}

// A block inside a sound frame, with some bytes changed: whatever code the engine answers with, the shard goes on.
faultTest(
  "blocks with random bytes changed",
  async (rig) => {
    const messages = scaled(8, 400);
    const gateway = await rig.gateway();
    for (let i = 0; i < messages; i++) {
      const block = rawBlock(3);
      for (let flips = rig.random.between(1, 4); flips > 0; flips--)
        block.bytes[rig.random.between(0, block.bytes.length - 1)] = rig.random.between(0, 255);
      const frame = await encodeBlock(block);
      await rawMessage(rig, { batch: block.batch }, () => frame);
    }
    await rig.projector({ ...LEASE, RELOG_PLAN_RECORDS_MAX: "30", RELOG_PLAN_RECORDS_ENOUGH: "30" });
    await rig.produce(gateway.url, { batches: 4 });
    await rig.caughtUp(LONG ? 500_000 : 90_000);
    await rig.assertInvariants();
  },
  { timeoutMs: scaled(120_000, 600_000) },
);

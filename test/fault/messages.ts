// Messages as no gateway makes them.

import type { Block } from "../../lib/event/batch.ts";
import { BatchBuilder, encodeBlock, SCHEMA_VERSION } from "../../lib/event/batch.ts";
import type { Enveloped } from "../../lib/event/envelope.ts";
import { envelopeHeaders } from "../../lib/event/envelope.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import { RecordDraft } from "../../lib/event/record.ts";
import type { Rig } from "./kit.ts";

/** A sound block of records without a marker, so that the ledger does not look for them. */
export function rawBlock(records: number, tenant = "default"): Block & { batch: string } {
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (let i = 0; i < records; i++) {
    draft.clear();
    draft.seconds = Math.floor(Date.now() / 1000);
    draft.body = `raw ${i}`;
    draft.service = "raw";
    builder.add(draft);
  }
  const batch = newBatchId(Date.now());
  return { ...builder.finish(tenant, batch, Date.now(), 0), batch };
}

/** Publishes a sound batch of three records with some fields of its envelope, or its frame, changed. Returns the sequence. */
export async function rawMessage(
  rig: Rig,
  fields: Partial<Enveloped> = {},
  alter: (frame: Buffer) => Uint8Array = (frame) => frame,
): Promise<number> {
  const block = rawBlock(3);
  const envelope: Enveloped = {
    schema: SCHEMA_VERSION,
    tenant: "default",
    batch: block.batch,
    part: 1,
    parts: 1,
    firstLine: 0,
    records: block.records,
    accepted: block.records,
    rejected: 0,
    bytes: 100,
    minTimestamp: block.minTimestamp,
    maxTimestamp: block.maxTimestamp,
    source: "test",
    bodyHash: "",
    ...fields,
  };
  const frame = await encodeBlock(block);
  return await rig.publishRaw(alter(frame), envelopeHeaders(envelope, newBatchId(Date.now())));
}

/** A copy with one byte changed. */
export function spoiled(frame: Buffer, at: number): Buffer {
  const copy = Buffer.from(frame);
  copy[at] = copy[at]! ^ 0xff;
  return copy;
}

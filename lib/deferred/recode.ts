// A deferred message as it is released: the same records, observed now.
//
// Promises: batch, lines, texts and types are what they were; only `observed_timestamp` is new, so that usage counts the records
// in the window in which they are stored; the message says when it was first accepted.

import { BatchBuilder, encodeBlock } from "../event/batch.ts";
import { decodeBatch, draftOf } from "../event/decode.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS } from "../event/envelope.ts";
import { RecordDraft } from "../event/record.ts";

/** Far above what a gateway closes a message at. */
const BLOCK_BYTES_MAX = 64 * 2 ** 20;

/** @throws Error, RangeError when the payload is no block of records */
export async function observedNow(
  message: StoredMessage,
  nowMs: number,
): Promise<{ headers: readonly (readonly [string, string])[]; payload: Uint8Array }> {
  const records = await decodeBatch(message.payload, BLOCK_BYTES_MAX);
  const first = records[0];
  if (first === undefined) throw new RangeError("the block has no record");
  const [builder, draft] = [new BatchBuilder(), new RecordDraft()];
  for (const record of records) {
    draftOf(record, draft);
    builder.add(draft);
  }
  const lines = records.map(({ line }) => line);
  const payload = await encodeBlock(builder.finish(first.tenant, first.batch, nowMs, lines));
  const kept = message.pairs().filter(([name]) => name !== HEADERS.observedMs && name !== HEADERS.deferredMs);
  const headers = [...kept, [HEADERS.observedMs, String(nowMs)], [HEADERS.deferredMs, String(Math.floor(message.storedMs))]] as const;
  return { headers: headers as readonly (readonly [string, string])[], payload };
}

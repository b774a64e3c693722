// Batches for tests.

import { BatchBuilder, encodeBlock } from "./batch.ts";
import { RecordDraft } from "./record.ts";

/** A payload of one record a line: its body is `line <n>`, its time `seconds` since the epoch and that many more. */
export async function frameOf(tenant: string, batch: string, lines: readonly number[], seconds: number): Promise<Buffer> {
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (const line of lines) {
    draft.clear();
    draft.seconds = seconds + line;
    draft.body = `line ${line}`;
    builder.add(draft);
  }
  return await encodeBlock(builder.finish(tenant, batch, seconds * 1_000, lines));
}

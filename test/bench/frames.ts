// Bodies -> the frames that a gateway would put into the streams, by the gateway's own code.

import { BatchBuilder, encodeBlock } from "../../lib/event/batch.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import { recordLimits } from "../../lib/ingest/decoded.ts";
import { decodeNdjson } from "../../lib/ingest/ndjson/decode.ts";
import { FieldMap } from "../../lib/ingest/ndjson/fields.ts";

const fields = new FieldMap();
const LIMITS = { recordBytesMax: 256 * 1024, attributesMax: 256, depthMax: 32, keyBytesMax: 512, futureMaxMs: 86_400_000 };

export interface Frame {
  readonly bytes: Buffer;
  readonly records: number;
}

/** @throws Error when the gateway would reject a record */
export async function frameOf(body: Buffer, tenant: string): Promise<Frame> {
  const now = Date.now();
  const builder = new BatchBuilder();
  decodeNdjson(body, fields, recordLimits(LIMITS, now), {
    accept: (draft) => builder.add(draft),
    reject(rejection) {
      throw new Error(`line ${rejection.line} of a body is refused: ${rejection.message}`);
    },
  });
  const records = builder.records;
  return { bytes: await encodeBlock(builder.finish(tenant, newBatchId(now), now, 0)), records };
}

// What receipts are answered from: the streams, the checkpoints, and gaps that are still being counted.

import type { ReceiptPorts } from "../../lib/query/receipts.ts";
import { shardProgress } from "../../lib/streams/checkpoints.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { findBatch, findDeadLetters, findDeferred } from "../../lib/streams/find.ts";
import { openGap } from "./deferred.ts";

/** @param connected throws RelogError stream_unavailable while there is no connection */
export function receiptPorts(
  connected: () => NatsConnection,
  { shards, deferGraceMs }: { readonly shards: number; readonly deferGraceMs: number },
): ReceiptPorts {
  return {
    deferGraceMs,
    findBatch: async (tenant, id) => await findBatch(connected(), shards, tenant, id),
    findDeferred: async (tenant, id) => await findDeferred(connected(), tenant, id),
    findGap: async (tenant, id) => await openGap(connected(), tenant, id),
    findDeadLetters: async (shard, tenant, id) => await findDeadLetters(connected(), shard, tenant, id),
    checkpoints: async (shard) => await shardProgress(connected(), shard),
  };
}

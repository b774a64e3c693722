// How long a call takes, the same histogram for every protocol.

import type { Telemetry } from "../base/telemetry.ts";
import { LATENCY_BUCKETS_S } from "../base/telemetry.ts";

/** From the head of a call to its answer, by source. */
export function ingestLatency(telemetry: Telemetry) {
  return telemetry.histogram("relog_ingest_request_seconds", "from the head of a call to its answer", LATENCY_BUCKETS_S, ["source"]);
}

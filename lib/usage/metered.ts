// What one message of a shard adds to its tenant's usage, read from its envelope's headers.

import { HEADERS } from "../event/envelope.ts";
import { isBatchId, timeOfBatchId } from "../event/ids.ts";

export interface Metered {
  readonly tenant: string;
  readonly records: number;
  /** Bytes of the records' texts. */
  readonly size: number;
  /** Decides the day and month, milliseconds since the epoch. */
  readonly observedMs: number;
}

const WHOLE = /^\d{1,15}$/;
/** A gateway whose clock is ahead must not turn a tenant's day. */
const AHEAD_MAX_MS = 60_000;

/**
 * The same numbers as readEnvelope, for a part of its cost: every message of every shard passes here, in every process.
 * @param storedMs when the stream stored it: no message was observed later
 * @returns undefined when it is no batch
 */
export function readMetered(header: (name: string) => string, storedMs: number): Metered | undefined {
  const tenant = header(HEADERS.tenant);
  const records = header(HEADERS.records);
  // Messages of earlier versions do not say size and time: see readEnvelope.
  const size = header(HEADERS.size) || header(HEADERS.bytes);
  if (tenant === "" || !WHOLE.test(records) || !WHOLE.test(size)) return undefined;
  const observed = header(HEADERS.observedMs);
  const batch = observed === "" ? header(HEADERS.batch) : "";
  if (observed === "" ? !isBatchId(batch) : !WHOLE.test(observed)) return undefined;
  const observedMs = Math.min(observed === "" ? timeOfBatchId(batch) : Number(observed), storedMs + AHEAD_MAX_MS);
  return { tenant, records: Number(records), size: Number(size), observedMs };
}

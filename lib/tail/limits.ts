// The bounds of live tails.

import { bytes, duration, integer } from "../base/config.ts";

export const tailSettings = {
  tailsMax: integer("RELOG_TAILS_MAX", "100", [0, 10_000], "tails", "running at once in this process; over it is 429"),
  tailsPerTenant: integer(
    "RELOG_TAILS_PER_TENANT",
    "10",
    [1, 10_000],
    "tails",
    "of one tenant at once in this process, so that no tenant takes all of them",
  ),
  queueRecordsMax: integer(
    "RELOG_TAIL_QUEUE_RECORDS_MAX",
    "5000",
    [1, 1e6],
    "records",
    "waiting for the reader of one tail; while it is full the tail falls behind, see RELOG_TAIL_LAG_MAX",
  ),
  queueBytesMax: bytes("RELOG_TAIL_QUEUE_BYTES_MAX", "2MiB", "as RELOG_TAIL_QUEUE_RECORDS_MAX, in bytes of the answer"),
  lagMaxMs: duration(
    "RELOG_TAIL_LAG_MAX",
    "2s",
    "how far behind a tail may fall that waits for its reader or for its rate; what is older is skipped",
  ),
  recordsPerSecond: integer(
    "RELOG_TAIL_RECORDS_PER_SECOND",
    "5000",
    [1, 1e6],
    "records",
    "that one tail sends a second; what comes faster waits up to RELOG_TAIL_LAG_MAX. A tail may ask for fewer: then the rest is skipped at once",
  ),
  openedPerSecond: integer(
    "RELOG_TAIL_OPENED_PER_SECOND",
    "50000",
    [1, 1e8],
    "records",
    "that all tails of this process open a second, in equal shares, so that queries have time left; opening one takes 6 us, sending it 10 more",
  ),
  blockBytesMax: bytes("RELOG_TAIL_BLOCK_BYTES_MAX", "64MiB", "one batch when it is opened; one that is larger is not shown"),
  keepAliveMs: duration(
    "RELOG_TAIL_KEEP_ALIVE",
    "15s",
    "a silent tail sends an empty line this often, so that dead connections are noticed",
  ),
  stallMs: duration("RELOG_TAIL_STALL_TIME", "60s", "a reader that takes nothing of what waits for it this long is disconnected"),
  lifeMaxMs: duration("RELOG_TAIL_LIFE_MAX", "24h", "longest life of one tail, so that forgotten ones end"),
};

export interface TailLimits {
  readonly queueRecordsMax: number;
  readonly queueBytesMax: number;
  readonly lagMaxMs: number;
  readonly recordsPerSecond: number;
  readonly openedPerSecond: number;
  readonly blockBytesMax: number;
  readonly keepAliveMs: number;
  readonly stallMs: number;
  readonly lifeMaxMs: number;
}

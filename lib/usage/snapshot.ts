// What is remembered of the meter, one value a shard.

/** A shard's part of all usage, and up to where. Written as it is. */
export interface Snapshot {
  readonly version: typeof SNAPSHOT_VERSION;
  /** When the stream was created that `next` counts in. */
  readonly stream: string;
  /** The first sequence that is not in the totals. */
  readonly next: number;
  /** [day from, day to, month from, month to] in milliseconds since the epoch: few, for all tenants. */
  readonly windows: readonly (readonly [number, number, number, number])[];
  /** [window, records of the day, bytes of the day, records of the month, bytes of the month]. */
  readonly tenants: Readonly<Record<string, readonly [number, number, number, number, number]>>;
}

export const SNAPSHOT_VERSION = 1;

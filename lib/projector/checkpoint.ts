// The checkpoint of one (site, generation, shard): how far the projection is, what it means to do next, and who does it.

import type { Classes } from "../event/retention.ts";
import type { Leased } from "../streams/lease.ts";

/** The durable intent: these sequences go in as one insert under this token. */
export interface Plan {
  readonly from: number;
  readonly to: number;
  readonly token: string;
  /** How long records of its tenants stay: whoever carries it out stores the same rows. Absent in plans of earlier versions. */
  readonly classes?: Classes;
}

export interface Checkpoint extends Leased {
  /** The first sequence that is not settled. */
  readonly next: number;
  readonly plan: Plan | null;
  /** When the stream was created: a stream that was deleted and made again is noticed. */
  readonly stream: string;
  /** The sequence of CONTROL up to which the last plan was made with all that is known of tenants. Absent is 0. */
  readonly accounts?: number;
}

/** The key of a checkpoint in the bucket. */
export function checkpointKey(site: string, generation: number, shard: number): string {
  return `checkpoint.${site}.${generation}.${shard}`;
}

/**
 * Whether an owner that leaves may let the next one in at once: not while a plan is open. An insert of it may still be on its
 * way, and only the lease, which is longer than the insert's fence, says when it will not arrive any more.
 */
export function mayRelease(checkpoint: Checkpoint): boolean {
  return checkpoint.plan === null;
}

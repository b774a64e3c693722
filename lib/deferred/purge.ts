// Removing what a tenant has deferred, for whoever deletes the tenant.

import { waitFor } from "../base/loop.ts";
import type { Releasing } from "./release.ts";

export interface PurgePorts {
  /** Removes the tenant's messages of DEFERRED. @returns how many */
  purge(tenant: string): Promise<number>;
  /** What the releaser does now. */
  releasing(): Promise<Releasing | undefined>;
}

const IN_HAND_MS = 60_000;
const POLL_MS = 100;

/**
 * Removes all that waits of a tenant, and returns when the releaser has none of it in hand any more: what it was releasing is in
 * LOGS then, so this comes before LOGS is purged.
 * @returns messages removed @throws Error when a releaser keeps some in hand, or NATS's errors; doing it again is harmless
 */
export async function purgeDeferred(ports: PurgePorts, tenant: string): Promise<number> {
  const removed = await ports.purge(tenant);
  const free = async (): Promise<true | undefined> => ((await ports.releasing())?.intent?.tenant === tenant ? undefined : true);
  await waitFor(`the releaser to let go of tenant ${tenant}`, free, IN_HAND_MS, POLL_MS);
  return removed;
}

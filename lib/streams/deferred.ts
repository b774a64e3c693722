// What waits in DEFERRED: which tenants have something there, reading it in order, removing it.
//
// Promises: reads go to the stream's leader, so that nothing that is there is passed over; a message is its payload and the
// headers that its gateway gave it.

import type { NatsConnection } from "nats";
import type { StoredMessage } from "../event/envelope.ts";
import { STREAMS, SUBJECTS } from "../event/envelope.ts";
import { askLeaderFor } from "./leader.ts";

const TIMEOUT_MS = 5_000;

export interface DeferredState {
  readonly messages: number;
  readonly bytes: number;
  /** When the oldest message was deferred; undefined when there is none. */
  readonly oldestMs: number | undefined;
  /** What the stream may hold; undefined when it is not bounded. */
  readonly bytesMax: number | undefined;
}

/** How full DEFERRED is. @throws NatsError */
export async function deferredState(nc: NatsConnection): Promise<DeferredState> {
  const manager = await nc.jetstreamManager({ checkAPI: false, timeout: TIMEOUT_MS });
  const { state, config } = await manager.streams.info(STREAMS.deferred);
  return {
    messages: state.messages,
    bytes: state.bytes,
    oldestMs: state.messages === 0 ? undefined : Date.parse(state.first_ts),
    bytesMax: config.max_bytes > 0 ? config.max_bytes : undefined,
  };
}

/** Messages that wait, by tenant. One question while there are none. @throws NatsError */
export async function deferredByTenant(nc: NatsConnection): Promise<Map<string, number>> {
  const manager = await nc.jetstreamManager({ checkAPI: false, timeout: TIMEOUT_MS });
  const counts = new Map<string, number>();
  if ((await manager.streams.info(STREAMS.deferred)).state.messages === 0) return counts;
  const { state } = await manager.streams.info(STREAMS.deferred, { subjects_filter: "deferred.>" });
  for (const [subject, messages] of Object.entries(state.subjects ?? {})) {
    const tenant = subject.split(".")[2]!;
    counts.set(tenant, (counts.get(tenant) ?? 0) + messages);
  }
  return counts;
}

/** A tenant's first message at or behind a sequence; undefined when there is none. @throws NatsError */
export async function nextDeferred(nc: NatsConnection, tenant: string, seq: number): Promise<StoredMessage | undefined> {
  return await askLeaderFor(nc, STREAMS.deferred, { seq: Math.max(1, seq), next_by_subj: SUBJECTS.deferredOf(tenant) }, TIMEOUT_MS);
}

/** The message with a sequence; undefined when it is gone. @throws NatsError */
export async function deferredAt(nc: NatsConnection, seq: number): Promise<StoredMessage | undefined> {
  return await askLeaderFor(nc, STREAMS.deferred, { seq }, TIMEOUT_MS);
}

/** Removes a tenant's messages up to a sequence. @throws NatsError; removing them again is harmless */
export async function removeDeferredUpTo(nc: NatsConnection, tenant: string, seq: number): Promise<void> {
  const manager = await nc.jetstreamManager({ checkAPI: false, timeout: TIMEOUT_MS });
  await manager.streams.purge(STREAMS.deferred, { filter: SUBJECTS.deferredOf(tenant), seq: seq + 1 });
}

/** Removes all that a tenant has there. @throws NatsError */
export async function purgeDeferredOf(nc: NatsConnection, tenant: string): Promise<number> {
  const manager = await nc.jetstreamManager({ checkAPI: false, timeout: TIMEOUT_MS });
  return (await manager.streams.purge(STREAMS.deferred, { filter: SUBJECTS.deferredOf(tenant) })).purged;
}

// What a LOGS stream has stored already, for whoever is about to store it.
//
// Promises: looking behind a sequence passes nothing over: the walk asks the stream's leader for what it does not meet, and ends
// where the leader says the stream does. Payloads are not read.

import type { NatsConnection } from "nats";
import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS, STREAMS, SUBJECTS } from "../event/envelope.ts";
import { scanHeaders } from "./find.ts";
import { askLeaderFor } from "./leader.ts";
import { streamState } from "./read.ts";
import { walkStream } from "./walk.ts";

/** A message of a batch, by a name. */
export const partName = (batch: string, part: number): string => `${batch} ${part}`;

const ASK_TIMEOUT_MS = 5_000;

/** The message with a sequence, from the stream's leader; undefined when it is gone. @throws NatsError, Error */
export async function messageAt(nc: NatsConnection, stream: string, seq: number): Promise<StoredMessage | undefined> {
  return await askLeaderFor(nc, stream, { seq }, ASK_TIMEOUT_MS);
}

/** The last sequence of a shard's LOGS stream, as its leader says. @throws NatsError */
export async function lastSeqOf(nc: NatsConnection, shard: number): Promise<number> {
  return (await streamState(nc, STREAMS.logs(shard))).lastSeq;
}

/**
 * Which of a tenant's messages a LOGS stream holds behind a sequence.
 * @param wanted their names, see `partName`
 * @throws NatsError, the signal's reason
 */
export async function storedBehind(
  nc: NatsConnection,
  shard: number,
  tenant: string,
  wanted: ReadonlySet<string>,
  seq: number,
  signal: AbortSignal,
): Promise<Set<string>> {
  const found = new Set<string>();
  const [stream, subject] = [STREAMS.logs(shard), SUBJECTS.logs(shard, tenant)];
  for await (const message of walkStream(nc, stream, seq + 1, await lastSeqOf(nc, shard), signal)) {
    if (message.kind === "gone" || message.subject !== subject) continue;
    const name = partName(message.header(HEADERS.batch), Number.parseInt(message.header(HEADERS.part), 10));
    if (wanted.has(name)) found.add(name);
    if (found.size === wanted.size) break;
  }
  return found;
}

/** A stored message of a call. */
export interface CallMessage {
  readonly storedMs: number;
  header(name: string): string;
}

/**
 * A tenant's messages that a LOGS stream stored between two times and that have one of some de-duplication ids.
 * @param fromMs and toMs, milliseconds since the epoch, by the servers' clocks; not the last seconds, where a replica may lag
 * @throws NatsError, or Error when not all of it came
 */
export async function storedUnder(
  nc: NatsConnection,
  shard: number,
  tenant: string,
  ids: ReadonlySet<string>,
  fromMs: number,
  toMs: number,
): Promise<Map<string, CallMessage[]>> {
  const found = new Map<string, CallMessage[]>();
  const subject = SUBJECTS.logs(shard, tenant);
  for await (const message of scanHeaders(nc, STREAMS.logs(shard), subject, fromMs, true)) {
    if (message.storedMs > toMs) break;
    const id = message.header(HEADERS.messageId);
    if (ids.has(id)) found.set(id, [...(found.get(id) ?? []), message]);
  }
  return found;
}

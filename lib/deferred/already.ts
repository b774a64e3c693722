// What of an intent is in LOGS already: under its own batch, when a releaser died over it, or as the same call under another,
// when a producer repeated a call at a gateway that did not know yet that the first one was deferred.
//
// Promises: exactly once also beyond the stream's window; a key that was used again after the window is another call.

import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS, readEnvelope } from "../event/envelope.ts";
import type { CallMessage } from "../streams/stored.ts";
import { partName } from "../streams/stored.ts";

/** A message of DEFERRED and where it belongs. */
export interface Waiting {
  readonly message: StoredMessage;
  readonly shard: number;
  readonly batch: string;
  readonly part: number;
}

export interface AlreadyPorts {
  /** Which of a tenant's messages a LOGS stream holds behind a sequence. @param wanted their names, see `partName` */
  storedBehind(shard: number, tenant: string, wanted: ReadonlySet<string>, seq: number, signal: AbortSignal): Promise<ReadonlySet<string>>;
  /** A tenant's messages with these de-duplication ids that a LOGS stream stored between two times, milliseconds since the epoch. */
  storedUnder(
    shard: number,
    tenant: string,
    ids: ReadonlySet<string>,
    fromMs: number,
    toMs: number,
  ): Promise<ReadonlyMap<string, readonly CallMessage[]>>;
  /** How long a stream knows an id. */
  readonly dedupeWindowMs: number;
  /** How long a gateway may take to append a message. */
  readonly appendTimeoutMs: number;
}

/** How long a gateway may not know that another one deferred a call: some looks of its own. */
const UNAWARE_MS = 10_000;

/**
 * The sequences in DEFERRED of those messages that need not be stored.
 * @param after the last sequence of each LOGS stream before the intent; undefined when the intent is new
 * @param nowMs milliseconds since the epoch
 * @throws the ports' errors
 */
export async function alreadyStored(
  ports: AlreadyPorts,
  tenant: string,
  waiting: readonly Waiting[],
  after: Readonly<Record<string, number>> | undefined,
  nowMs: number,
  signal: AbortSignal,
): Promise<ReadonlySet<number>> {
  const done = new Set<number>();
  for (const [shard, of] of Map.groupBy(waiting, (one) => one.shard)) {
    if (after !== undefined) {
      const name = (one: Waiting): string => partName(one.batch, one.part);
      const stored = await ports.storedBehind(shard, tenant, new Set(of.map(name)), after[shard] ?? 0, signal);
      for (const one of of) if (stored.has(name(one))) done.add(one.message.seq);
    }
    for (const message of await repeated(ports, shard, tenant, of, nowMs)) done.add(message.seq);
  }
  return done;
}

/** Those whose call was stored under another batch, at another gateway, about when they were deferred. */
async function repeated(
  ports: AlreadyPorts,
  shard: number,
  tenant: string,
  waiting: readonly Waiting[],
  nowMs: number,
): Promise<StoredMessage[]> {
  const marginMs = ports.appendTimeoutMs + UNAWARE_MS;
  // While the stream still knows the ids appending says so.
  const youngestMs = nowMs - ports.dedupeWindowMs / 2;
  const keyed = waiting
    .map(({ message }) => message)
    .filter(({ header, storedMs }) => header(HEADERS.bodyHash) !== "" && storedMs < youngestMs);
  if (keyed.length === 0) return [];
  const times = keyed.map(({ storedMs }) => storedMs);
  const ids = new Set(keyed.map(({ header }) => header(HEADERS.messageId)));
  const found = await ports.storedUnder(shard, tenant, ids, Math.min(...times) - marginMs, Math.max(...times) + marginMs);
  return keyed.filter((message) =>
    found.get(message.header(HEADERS.messageId))?.some((stored) => isSameCall(message, stored, ports.dedupeWindowMs)),
  );
}

/** Whether a stored message is what a deferred one is: the same part of the same body under the same key, both within a window. */
export function isSameCall(deferred: CallMessage, stored: CallMessage, dedupeWindowMs: number): boolean {
  const acceptedMs = Number(stored.header(HEADERS.deferredMs)) || stored.storedMs;
  const same = (name: string): boolean => deferred.header(name) === stored.header(name);
  return (
    deferred.header(HEADERS.bodyHash) !== "" &&
    [HEADERS.bodyHash, HEADERS.messageId, HEADERS.part, HEADERS.firstLine].every(same) &&
    Math.abs(acceptedMs - deferred.storedMs) <= dedupeWindowMs
  );
}

/** Where a message of DEFERRED belongs. */
export function waitingOf(message: StoredMessage): Waiting {
  const envelope = readEnvelope(message.header);
  const [batch, part] = "fault" in envelope ? ["", 0] : [envelope.batch, envelope.part];
  return { message, shard: Number(message.subject.split(".")[1]), batch, part };
}

// Finding a batch in its stream by its id.

import type { NatsConnection } from "nats";
import { AckPolicy, DeliverPolicy, NatsError, nanos } from "nats";
import type { Envelope } from "../event/envelope.ts";
import { HEADERS, readEnvelope, STREAMS, SUBJECTS } from "../event/envelope.ts";
import { shardOf, timeOfBatchId } from "../event/ids.ts";
import { JETSTREAM } from "./codes.ts";
import { DEAD_HEADERS } from "./dead.ts";

export interface FoundPart {
  readonly stream: string;
  readonly shard: number;
  readonly seq: number;
  readonly storedMs: number;
  readonly envelope: Envelope;
  /** When it was first accepted, if it was deferred. */
  readonly deferredMs: number | undefined;
}

export interface FoundDead {
  readonly seq: number;
  readonly originSeq: number;
  readonly reason: string;
  readonly detail: string;
  readonly lines: string;
  readonly site: string;
}

/** How far the gateways' clocks and the servers' may differ, and how long an append may take, in milliseconds. */
const BEFORE_MS = 10_000;
const AFTER_MS = 60_000;
const FETCH_MESSAGES = 500;
const FETCH_WAIT_MS = 1_000;
const SCANNED_MAX = 100_000;
/** Messages of later calls that a search reads before it gives up: gap records and the ends of half-done calls lie between deferred ones. */
const LATER_MAX = 100;

interface HeadersOnly {
  readonly seq: number;
  readonly subject: string;
  readonly storedMs: number;
  header(name: string): string;
}

/**
 * The messages of a tenant's batch. The id says when it was made, and so where to look: only headers are read, and only
 * of this tenant's messages stored around that time. What was deferred is stored later, but in its tenant's order: while a
 * tenant is over its quota nothing else of it is stored, so that the search goes on for as long as it meets deferred ones.
 * @throws NatsError when JetStream does not answer
 */
export async function findBatch(nc: NatsConnection, shards: number, tenant: string, batch: string): Promise<FoundPart[]> {
  const madeMs = timeOfBatchId(batch);
  if (madeMs > Date.now() + AFTER_MS) return [];
  const home = shardOf(batch, shards);
  const order = [home, ...Array.from({ length: shards }, (_, shard) => shard).filter((shard) => shard !== home)];
  for (const shard of order) {
    const found: FoundPart[] = [];
    let later = 0;
    for await (const message of scanHeaders(nc, STREAMS.logs(shard), SUBJECTS.logs(shard, tenant), madeMs - BEFORE_MS)) {
      const part = partOf(message, STREAMS.logs(shard), shard, batch);
      if (part !== undefined) {
        found.push(part);
        if (found.length === part.envelope.parts) break;
      }
      // A repeated call may finish the later messages of an earlier one: once some are found, the search goes on.
      const acceptedMs = Number(message.header(HEADERS.deferredMs)) || message.storedMs;
      if (found.length === 0 && acceptedMs > madeMs + AFTER_MS && ++later > LATER_MAX) break;
    }
    if (found.length > 0) return found.sort((a, b) => a.envelope.part - b.envelope.part);
  }
  return [];
}

/** The messages of a tenant's batch that wait in DEFERRED. @throws NatsError when JetStream does not answer */
export async function findDeferred(nc: NatsConnection, tenant: string, batch: string): Promise<FoundPart[]> {
  const found: FoundPart[] = [];
  for await (const message of scanHeaders(nc, STREAMS.deferred, SUBJECTS.deferredOf(tenant), timeOfBatchId(batch) - BEFORE_MS)) {
    const part = partOf(message, STREAMS.deferred, Number(message.subject.split(".")[1]), batch);
    if (part !== undefined) found.push({ ...part, deferredMs: message.storedMs });
    if (part !== undefined && found.length === part.envelope.parts) break;
    if (found.length === 0 && message.storedMs > timeOfBatchId(batch) + AFTER_MS) break;
  }
  return found.sort((a, b) => a.envelope.part - b.envelope.part);
}

function partOf(message: HeadersOnly, stream: string, shard: number, batch: string): FoundPart | undefined {
  if (message.header(HEADERS.batch) !== batch) return undefined;
  const envelope = readEnvelope(message.header);
  if ("fault" in envelope) return undefined;
  const deferredMs = Number(message.header(HEADERS.deferredMs)) || undefined;
  return { stream, shard, seq: message.seq, storedMs: message.storedMs, envelope, deferredMs };
}

/** The dead letters that come from a tenant's batch. */
export async function findDeadLetters(nc: NatsConnection, shard: number, tenant: string, batch: string): Promise<FoundDead[]> {
  const found: FoundDead[] = [];
  for await (const message of scanHeaders(nc, STREAMS.deadLetters, `${SUBJECTS.dead(shard, tenant)}.*`, timeOfBatchId(batch) - BEFORE_MS)) {
    if (message.header(HEADERS.batch) !== batch) continue;
    found.push({
      seq: message.seq,
      originSeq: Number(message.header(DEAD_HEADERS.sequence)),
      reason: message.header(DEAD_HEADERS.reason),
      detail: message.header(DEAD_HEADERS.detail),
      lines: message.header(DEAD_HEADERS.lines),
      site: message.header(DEAD_HEADERS.site),
    });
  }
  return found;
}

/**
 * Headers of a stream's messages from a time on, through a consumer of its own that is deleted afterwards. Ends at the stream's end.
 * @param whole reads without a bound, and throws when a fetch brings less than there is instead of ending there
 */
export async function* scanHeaders(
  nc: NatsConnection,
  stream: string,
  subject: string,
  fromMs: number,
  whole = false,
): AsyncGenerator<HeadersOnly> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  const made = manager.consumers.add(stream, {
    deliver_policy: DeliverPolicy.StartTime,
    opt_start_time: new Date(fromMs).toISOString(),
    filter_subject: subject,
    headers_only: true,
    ack_policy: AckPolicy.None,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(30_000),
  });
  const consumer = await made.catch((error: unknown) => {
    // DEFERRED came with a later version than LOGS: nothing waits where it does not exist.
    const none = error instanceof NatsError && error.api_error?.err_code === JETSTREAM.streamNotFound;
    if (none && stream === STREAMS.deferred) return undefined;
    throw error;
  });
  if (consumer === undefined) return;
  try {
    const handle = await nc.jetstream().consumers.get(stream, consumer.name);
    for (let scanned = 0; whole || scanned < SCANNED_MAX; ) {
      const { num_pending: pending } = await handle.info();
      if (pending === 0) return;
      // A fetch is taken to its end: one that is left early may lose messages.
      const batch: HeadersOnly[] = [];
      const wanted = Math.min(FETCH_MESSAGES, pending);
      for await (const message of await handle.fetch({ max_messages: wanted, expires: FETCH_WAIT_MS })) {
        const header = message.headers;
        batch.push({
          seq: message.seq,
          subject: message.subject,
          storedMs: message.info.timestampNanos / 1e6,
          header: (name) => header?.get(name) ?? "",
        });
      }
      if (whole && batch.length < wanted) throw new Error(`${stream} gave ${batch.length} of ${wanted} messages; it is asked again later`);
      scanned += batch.length;
      yield* batch;
      if (batch.length === 0) return;
    }
  } finally {
    await manager.consumers.delete(stream, consumer.name).catch((error: unknown) => {
      // It goes away by itself after its inactivity threshold.
      if (!(error instanceof NatsError)) throw error;
    });
  }
}

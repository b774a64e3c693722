// A batch on the wire: subject, headers and frame of one JetStream message.
//
// The envelope says everything about a batch that the projector, receipts, quotas and verification need, so that none of
// them opens the frame.

import { timeOfBatchId } from "./ids.ts";

export const HEADERS = {
  /** JetStream's de-duplication id: tenant, then the idempotency key or batch id, then the part. */
  messageId: "Nats-Msg-Id",
  schema: "Relog-Schema",
  tenant: "Relog-Tenant",
  batch: "Relog-Batch",
  /** "1/3": this message is the first of three of its call. */
  part: "Relog-Part",
  /** Index in the batch of the first record here. */
  firstLine: "Relog-First-Line",
  records: "Relog-Records",
  /** Records of the whole call, accepted and rejected, so that a repeated call gets the same receipt. */
  accepted: "Relog-Accepted",
  rejected: "Relog-Rejected",
  /** Bytes of the records as the producer sent them, after decompression. */
  bytes: "Relog-Bytes",
  minTimestamp: "Relog-Time-Min",
  maxTimestamp: "Relog-Time-Max",
  source: "Relog-Source",
  /** Bytes of the records' texts, the measure of usage; see BatchBuilder.size. Absent in messages of earlier versions. */
  size: "Relog-Size",
  /** When the records were observed, milliseconds since the epoch: what usage is counted by. Absent in messages of earlier versions. */
  observedMs: "Relog-Observed",
  /** SHA-256 of the body, after decompression, when the call had an idempotency key. */
  bodyHash: "Relog-Body-Sha256",
  /** When a message that was kept aside over its tenant's quota was first accepted, milliseconds since the epoch. */
  deferredMs: "Relog-Deferred",
} as const;

export interface Envelope {
  readonly schema: number;
  readonly tenant: string;
  readonly batch: string;
  readonly part: number;
  readonly parts: number;
  readonly firstLine: number;
  readonly records: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly bytes: number;
  /** Nanoseconds since the epoch. */
  readonly minTimestamp: bigint;
  readonly maxTimestamp: bigint;
  readonly source: string;
  readonly bodyHash: string;
  /** Bytes of the records' texts: what usage counts. */
  readonly size: number;
  /** When the records were observed, milliseconds since the epoch: their `observed_timestamp`. */
  readonly observedMs: number;
}

/** An envelope to be written; messages of earlier versions did not say the last two. */
export type Enveloped = Omit<Envelope, "size" | "observedMs"> & Partial<Pick<Envelope, "size" | "observedMs">>;

/** What JetStream knows a message by within its window. @param dedupeKey the batch id, or the idempotency key with "key:" before it */
export function messageId(tenant: string, dedupeKey: string, part: number): string {
  return `${tenant}:${dedupeKey}:${part}`;
}

/** Header pairs of an envelope, the de-duplication id included. */
export function envelopeHeaders(envelope: Enveloped, dedupeKey: string): [string, string][] {
  return [
    [HEADERS.messageId, messageId(envelope.tenant, dedupeKey, envelope.part)],
    [HEADERS.schema, String(envelope.schema)],
    [HEADERS.tenant, envelope.tenant],
    [HEADERS.batch, envelope.batch],
    [HEADERS.part, `${envelope.part}/${envelope.parts}`],
    [HEADERS.firstLine, String(envelope.firstLine)],
    [HEADERS.records, String(envelope.records)],
    [HEADERS.accepted, String(envelope.accepted)],
    [HEADERS.rejected, String(envelope.rejected)],
    [HEADERS.bytes, String(envelope.bytes)],
    [HEADERS.minTimestamp, String(envelope.minTimestamp)],
    [HEADERS.maxTimestamp, String(envelope.maxTimestamp)],
    [HEADERS.source, envelope.source],
    ...(envelope.size === undefined ? [] : [[HEADERS.size, String(envelope.size)] as [string, string]]),
    ...(envelope.observedMs === undefined ? [] : [[HEADERS.observedMs, String(envelope.observedMs)] as [string, string]]),
    ...(envelope.bodyHash === "" ? [] : [[HEADERS.bodyHash, envelope.bodyHash] as [string, string]]),
  ];
}

/** Reads an envelope back. Returns the name of the header that is missing or wrong instead when there is one. */
export function readEnvelope(header: (name: string) => string): Envelope | { readonly fault: string } {
  const whole = (name: string): number => (/^\d{1,15}$/.test(header(name)) ? Number(header(name)) : Number.NaN);
  const part = /^(\d{1,6})\/(\d{1,6})$/.exec(header(HEADERS.part));
  const time = (name: string): bigint | undefined => (/^\d{1,19}$/.test(header(name)) ? BigInt(header(name)) : undefined);
  const minTimestamp = time(HEADERS.minTimestamp);
  const maxTimestamp = time(HEADERS.maxTimestamp);
  // Earlier versions did not say them: the bytes as sent come closest, and a batch's id says when it was made.
  const later = (name: string, earlier: () => number): number => (header(name) === "" ? earlier() : whole(name));
  const numbers = {
    schema: whole(HEADERS.schema),
    firstLine: whole(HEADERS.firstLine),
    records: whole(HEADERS.records),
    accepted: whole(HEADERS.accepted),
    rejected: whole(HEADERS.rejected),
    bytes: whole(HEADERS.bytes),
    size: later(HEADERS.size, () => whole(HEADERS.bytes)),
    observedMs: later(HEADERS.observedMs, () => timeOfBatchId(header(HEADERS.batch))),
  };
  for (const [name, value] of Object.entries(numbers)) {
    if (Number.isNaN(value)) return { fault: `header ${HEADERS[name as keyof typeof numbers]} is missing or no number` };
  }
  if (part === null) return { fault: `header ${HEADERS.part} is missing or malformed` };
  if (minTimestamp === undefined || maxTimestamp === undefined) return { fault: "the time headers are missing or malformed" };
  const [tenant, batch] = [header(HEADERS.tenant), header(HEADERS.batch)];
  if (tenant === "") return { fault: `header ${HEADERS.tenant} is missing` };
  if (batch === "") return { fault: `header ${HEADERS.batch} is missing` };
  return {
    ...numbers,
    tenant,
    batch,
    part: Number(part[1]),
    parts: Number(part[2]),
    minTimestamp,
    maxTimestamp,
    source: header(HEADERS.source),
    bodyHash: header(HEADERS.bodyHash),
  };
}

/** A message as a stream holds it. */
export interface StoredMessage {
  readonly seq: number;
  readonly subject: string;
  readonly payload: Uint8Array;
  /** The first value of a header, "" when there is none. May be passed on as a function. */
  readonly header: (name: string) => string;
  /** Every header as the producer of the message set it, in order; none that the server added on the way out. */
  pairs(): readonly (readonly [name: string, value: string])[];
  /** When the stream stored it, milliseconds since the epoch. */
  readonly storedMs: number;
}

const TENANT = /^[a-z0-9][a-z0-9_-]{0,62}$/;

/** Tenants are single subject tokens: lower-case letters, digits, "-" and "_", at most 63. */
export function isTenant(text: string): boolean {
  return TENANT.test(text);
}

export const SUBJECTS = {
  logs: (shard: number, tenant: string) => `logs.${shard}.${tenant}`,
  logsOfShard: (shard: number) => `logs.${shard}.>`,
  deferred: (shard: number, tenant: string) => `deferred.${shard}.${tenant}`,
  deferredOf: (tenant: string) => `deferred.*.${tenant}`,
  dead: (shard: number, tenant: string) => `dead.${shard}.${tenant}`,
  ingest: (tenant: string) => `ingest.${tenant}`,
} as const;

export const STREAMS = {
  logs: (shard: number) => `LOGS_${shard}`,
  deferred: "DEFERRED",
  deadLetters: "DEAD_LETTERS",
  control: "CONTROL",
  projections: "projections",
} as const;

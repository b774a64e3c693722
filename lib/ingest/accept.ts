// From a decoded call to a receipt: the one way into the streams, for every protocol.
//
// Promises: a receipt means that JetStream has acknowledged every message of the call; the same idempotency key within
// the window gets the same receipt and stores nothing twice, also when the first call died half way; a call that is
// refused has stored nothing that was acknowledged.

import { createHash } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import type { Values } from "../base/config.ts";
import { bytes, integer } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import type { Telemetry } from "../base/telemetry.ts";
import { LATENCY_BUCKETS_S } from "../base/telemetry.ts";
import { encodeBlock, SCHEMA_VERSION } from "../event/batch.ts";
import type { Envelope } from "../event/envelope.ts";
import { envelopeHeaders } from "../event/envelope.ts";
import { newBatchId, newBatchIdOn, shardOf, timeOfBatchId } from "../event/ids.ts";
import type { Rejection } from "../event/record.ts";
import type { Collector } from "./collect.ts";
import { collect } from "./collect.ts";
import type { Decoded, RecordLimits } from "./decoded.ts";
import { recordSettings } from "./decoded.ts";
import type { Deferred, Dropped, Way } from "./over-quota.ts";
import type { TenantAttributes } from "./overflow.ts";
import type { Tenancy } from "./tenancy.ts";
import { UNBOUNDED } from "./tenancy.ts";

export const acceptSettings = {
  ...recordSettings,
  messageBytesMax: bytes(
    "RELOG_MESSAGE_BYTES_MAX",
    "512KiB",
    "a message is closed when its block, not compressed, has this many bytes; stock NATS takes 1 MiB",
  ),
  errorsReportedMax: integer("RELOG_ERRORS_REPORTED_MAX", "20", [1, 1000], "records", "rejected records that an answer lists one by one"),
};

/** Stores one message. The signature is that of lib/streams/append.ts. */
export type AppendPort = (message: {
  shard: number;
  tenant: string;
  headers: readonly (readonly [string, string])[];
  payload: Uint8Array;
  /** For the stream where records over a quota wait. */
  deferred?: boolean;
}) => Promise<{ stream: string; seq: number; duplicate: boolean }>;

/** The envelope of a stored message. */
export type EnvelopePort = (stream: string, seq: number) => Promise<Envelope>;

export interface Call {
  readonly tenant: string;
  /** Name of the protocol, for metrics and the envelope. */
  readonly source: string;
  readonly body: Buffer;
  readonly idempotencyKey: string | undefined;
  /** Told how many records the body turned out to hold, rejected ones too, before anything is stored. */
  readonly charge?: (records: number) => void;
}

/** Decodes a body into drafts; pure. */
export type Decode = (body: Buffer, limits: RecordLimits, out: Decoded) => void;

export interface Receipt {
  readonly id: string;
  readonly stream: string;
  readonly seq: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly errors: readonly Rejection[];
  /** Attributes that went into the attribute `overflow`, when there are any. */
  readonly overflowed?: number;
  /** Where each message is, when the call became several. */
  readonly parts?: readonly { readonly stream: string; readonly seq: number }[];
  /** True when the call had been stored before under the same idempotency key. */
  readonly duplicate?: true;
  /** The call waits until its tenant's quota has room. */
  readonly deferred?: Deferred;
  /** The call was counted and not stored. */
  readonly dropped?: Dropped["dropped"];
}

const KEY = /^[\x21-\x7e]{1,200}$/;

/** @throws RelogError of the catalogue; nothing of the call is acknowledged then */
export type Accept = (call: Call, decode: Decode) => Promise<Receipt>;

/** @param shards number of LOGS streams; `envelopeAt` is asked only for a call that repeats an idempotency key */
export function acceptor(
  settings: Values<typeof acceptSettings>,
  shards: number,
  append: AppendPort,
  envelopeAt: EnvelopePort,
  clock: Clock,
  telemetry: Telemetry,
  tenancy: Pick<Tenancy, "quotas" | "over" | "attributes"> = UNBOUNDED,
): Accept {
  const acceptance = new Acceptance(settings, shards, append, envelopeAt, tenancy);
  const overflows = telemetry.counter("relog_ingest_overflow_attributes_total", "attributes moved into `overflow`, by the limit", [
    "limit",
  ]);
  const records = telemetry.counter("relog_ingest_records_total", "records acknowledged", ["source"]);
  const rawBytes = telemetry.counter("relog_ingest_bytes_total", "bytes of acknowledged records as sent, after decompression", ["source"]);
  const rejections = telemetry.counter("relog_ingest_rejected_total", "records rejected", ["source", "reason"]);
  const help = "from the first append of a call to its last acknowledgement";
  const ackLatency = telemetry.histogram("relog_ingest_append_seconds", help, LATENCY_BUCKETS_S);

  return async (call, decode) => {
    if (call.idempotencyKey !== undefined && !KEY.test(call.idempotencyKey)) {
      throw new RelogError("idempotency_key_invalid", "the idempotency key has characters or a length that cannot be");
    }
    const way = await tenancy.over.way(call.tenant, call.idempotencyKey);
    const known = tenancy.attributes(call.tenant);
    const attributes = known instanceof Promise ? await known : known;
    const now = clock.now();
    const collected = acceptance.collect(call, decode, now, attributes);
    call.charge?.(collected.accepted + collected.rejected);
    for (const [reason, count] of collected.rejectedByCode) rejections.inc({ source: call.source, reason }, count);
    if (collected.accepted === 0) throw nothingToStore(collected);
    if (way.kind === "drop") return await tenancy.over.drop(call.tenant, way.reason, collected);
    const end = ackLatency.startTimer();
    const receipt = await acceptance.store(call, decode, collected, now, attributes, way);
    end();
    if (receipt.duplicate) return receipt;
    records.inc({ source: call.source }, receipt.accepted);
    rawBytes.inc({ source: call.source }, collected.rawBytes);
    for (const [limit, count] of collected.overflowed) overflows.inc({ limit }, count);
    return receipt;
  };
}

/** The steps of accepting a call. */
class Acceptance {
  readonly #settings: Values<typeof acceptSettings>;
  readonly #shards: number;
  readonly #append: AppendPort;
  readonly #envelopeAt: EnvelopePort;
  readonly #tenancy: Pick<Tenancy, "quotas" | "over">;

  constructor(
    settings: Values<typeof acceptSettings>,
    shards: number,
    append: AppendPort,
    envelopeAt: EnvelopePort,
    tenancy: Pick<Tenancy, "quotas" | "over">,
  ) {
    this.#settings = settings;
    this.#shards = shards;
    this.#append = append;
    this.#envelopeAt = envelopeAt;
    this.#tenancy = tenancy;
  }

  collect(call: Call, decode: Decode, now: number, attributes: TenantAttributes): Collector {
    return collect(this.#settings, (limits, out) => decode(call.body, limits, out), now, attributes);
  }

  async store(
    call: Call,
    decode: Decode,
    collected: Collector,
    now: number,
    attributes: TenantAttributes,
    way: Exclude<Way, { kind: "drop" }>,
  ): Promise<Receipt> {
    const sending = this.#identify(call, now, way.kind === "defer");
    const first = await this.#send(call, sending, collected, 0, now);
    const parts = [first];
    let [rest, restNow, totals] = [collected, now, { accepted: collected.accepted, rejected: collected.rejected }];
    const duplicate = first.duplicate && call.idempotencyKey !== undefined;
    if (duplicate) {
      // An earlier call had this key: its receipt is the answer, and what it left unfinished is finished under its id and
      // at its time, so that what depends on the clock comes out as it did then.
      const original = await this.#envelopeAt(first.stream, first.seq).catch((cause: unknown) => {
        throw new RelogError("outcome_unknown", "the call is stored, but its receipt cannot be read now", { cause, retryAfterS: 2 });
      });
      if (original.bodyHash !== sending.bodyHash) {
        throw new RelogError(
          "idempotency_key_reused",
          `the idempotency key belongs to batch ${original.batch}, whose body was another one`,
        );
      }
      sending.id = original.batch;
      totals = original;
      restNow = timeOfBatchId(original.batch);
      if (original.parts > 1) rest = this.collect(call, decode, restNow, attributes);
    }
    for (let index = 1; index < rest.blocks.length; index++) {
      const part = await this.#send(call, sending, rest, index, restNow).catch((cause: unknown) => {
        throw halfDone(sending.id, parts, rest.blocks.length, cause);
      });
      parts.push(part);
    }
    const overflowed = sumOf(rest.overflowed.values());
    return {
      id: sending.id,
      stream: first.stream,
      seq: first.seq,
      accepted: totals.accepted,
      rejected: totals.rejected,
      errors: rest.errors,
      ...(overflowed > 0 ? { overflowed } : {}),
      ...(parts.length > 1 ? { parts: parts.map(({ stream, seq }) => ({ stream, seq })) } : {}),
      ...(duplicate ? { duplicate: true } : {}),
      ...(way.kind === "defer" ? { deferred: this.#tenancy.over.deferred(call.tenant, sending.id, totals.accepted, way.reason) } : {}),
    };
  }

  #identify(call: Call, now: number, deferred: boolean): Sending {
    if (call.idempotencyKey === undefined) {
      const id = newBatchId(now);
      return { id, shard: shardOf(id, this.#shards), dedupeKey: id, bodyHash: "", deferred };
    }
    // De-duplication is per stream: all calls of a key must meet on one shard.
    const shard = shardOf(`${call.tenant}:${call.idempotencyKey}`, this.#shards);
    const bodyHash = createHash("sha256").update(call.body).digest("hex");
    return { id: newBatchIdOn(shard, this.#shards, now), shard, dedupeKey: `key:${call.idempotencyKey}`, bodyHash, deferred };
  }

  async #send({ tenant, source }: Call, sending: Sending, collected: Collector, index: number, now: number) {
    const { builder, firstLine, rawBytes } = collected.blocks[index]!;
    const block = builder.finish(tenant, sending.id, now, firstLine);
    const envelope: Envelope = {
      schema: SCHEMA_VERSION,
      tenant,
      batch: sending.id,
      part: index + 1,
      parts: collected.blocks.length,
      firstLine,
      records: block.records,
      accepted: collected.accepted,
      rejected: collected.rejected,
      bytes: rawBytes,
      minTimestamp: block.minTimestamp,
      maxTimestamp: block.maxTimestamp,
      source,
      bodyHash: sending.bodyHash,
      size: block.size,
      observedMs: now,
    };
    const headers = envelopeHeaders(envelope, sending.dedupeKey);
    const { shard, deferred } = sending;
    const appended = await this.#append({ shard, tenant, headers, payload: await encodeBlock(block), deferred });
    const { records, size } = block;
    // What waits is counted when it is released.
    if (!appended.duplicate && !deferred) this.#tenancy.quotas.stored({ tenant, shard, seq: appended.seq, records, size });
    return appended;
  }
}

function sumOf(counts: Iterable<number>): number {
  let sum = 0;
  for (const count of counts) sum += count;
  return sum;
}

/** What the messages of a call have in common. */
interface Sending {
  /** Becomes the first call's when this one repeats it. */
  id: string;
  readonly shard: number;
  readonly dedupeKey: string;
  /** Empty without an idempotency key. */
  readonly bodyHash: string;
  readonly deferred: boolean;
}

/** Some messages of a call are stored and one is not: only the same call under an idempotency key can be repeated without doubling them. */
function halfDone(id: string, parts: readonly { stream: string; seq: number }[], total: number, cause: unknown): RelogError {
  const why = cause instanceof RelogError ? cause.message : "an internal error";
  const retryAfterS = (cause instanceof RelogError ? cause.retryAfterS : undefined) ?? 2;
  const stored = parts.map(({ stream, seq }) => ({ stream, seq }));
  const text = `${parts.length} of the call's ${total} messages are stored, the next is not: ${why}`;
  return new RelogError("outcome_unknown", text, { cause, retryAfterS, details: { id, stored } });
}

function nothingToStore(collected: Collector): RelogError {
  if (collected.rejected === 0) return new RelogError("empty_body", "the request holds no record");
  return new RelogError("all_rejected", `all ${collected.rejected} records were rejected`, {
    details: { accepted: 0, rejected: collected.rejected, errors: collected.errors },
  });
}

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
import { BatchBuilder, encodeBlock, SCHEMA_VERSION } from "../event/batch.ts";
import type { Envelope } from "../event/envelope.ts";
import { envelopeHeaders } from "../event/envelope.ts";
import { newBatchId, newBatchIdOn, shardOf } from "../event/ids.ts";
import type { RecordDraft, Rejection } from "../event/record.ts";
import type { Decoded, RecordLimits } from "./decoded.ts";
import { recordLimits, recordSettings } from "./decoded.ts";

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
}) => Promise<{ stream: string; seq: number; duplicate: boolean }>;

/** The envelope of a stored message. */
export type EnvelopePort = (stream: string, seq: number) => Promise<Envelope>;

export interface Call {
  readonly tenant: string;
  /** Name of the protocol, for metrics and the envelope. */
  readonly source: string;
  readonly body: Buffer;
  readonly idempotencyKey: string | undefined;
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
  /** Where each message is, when the call became several. */
  readonly parts?: readonly { readonly stream: string; readonly seq: number }[];
  /** True when the call had been stored before under the same idempotency key. */
  readonly duplicate?: true;
}

const KEY = /^[\x21-\x7e]{1,200}$/;

/** @throws RelogError of the catalogue; nothing of the call is acknowledged then */
export type Accept = (call: Call, decode: Decode) => Promise<Receipt>;

/** Sorts a decoder's output into the blocks of messages. */
class Collector implements Decoded {
  readonly blocks: { builder: BatchBuilder; firstLine: number; rawBytes: number }[] = [];
  readonly errors: Rejection[] = [];
  accepted = 0;
  rejected = 0;
  readonly rejectedByCode = new Map<string, number>();
  readonly #messageBytesMax: number;
  readonly #errorsMax: number;

  constructor(messageBytesMax: number, errorsMax: number) {
    this.#messageBytesMax = messageBytesMax;
    this.#errorsMax = errorsMax;
  }

  accept(draft: RecordDraft, rawBytes: number): void {
    let block = this.blocks.at(-1);
    // Where messages are cut depends on the records alone, so that a repeated call is cut in the same places.
    if (block === undefined || block.builder.bytes >= this.#messageBytesMax) {
      block = { builder: new BatchBuilder(), firstLine: this.accepted, rawBytes: 0 };
      this.blocks.push(block);
    }
    block.builder.add(draft);
    block.rawBytes += rawBytes;
    this.accepted++;
  }

  reject(rejection: Rejection): void {
    this.rejected++;
    this.rejectedByCode.set(rejection.code, (this.rejectedByCode.get(rejection.code) ?? 0) + 1);
    if (this.errors.length < this.#errorsMax) this.errors.push(rejection);
  }
}

export function acceptor(
  settings: Values<typeof acceptSettings>,
  shards: number,
  append: AppendPort,
  envelopeAt: EnvelopePort,
  clock: Clock,
  telemetry: Telemetry,
): Accept {
  const records = telemetry.counter("relog_ingest_records_total", "records acknowledged", ["source"]);
  const rawBytes = telemetry.counter("relog_ingest_bytes_total", "bytes of acknowledged records as sent, after decompression", ["source"]);
  const rejections = telemetry.counter("relog_ingest_rejected_total", "records rejected", ["source", "reason"]);
  const ackLatency = telemetry.histogram(
    "relog_ingest_append_seconds",
    "from the first append of a call to its last acknowledgement",
    LATENCY_BUCKETS_S,
  );

  return async (call, decode) => {
    const { tenant, source, idempotencyKey } = call;
    if (idempotencyKey !== undefined && !KEY.test(idempotencyKey)) {
      throw new RelogError("idempotency_key_invalid", "the idempotency key has characters or a length that cannot be");
    }
    const now = clock.now();
    const collected = new Collector(settings.messageBytesMax, settings.errorsReportedMax);
    decode(call.body, recordLimits(settings, now), collected);
    for (const [reason, count] of collected.rejectedByCode) rejections.inc({ source, reason }, count);
    if (collected.accepted === 0) throw nothingToStore(collected);

    const end = ackLatency.startTimer();
    const receipt = await store(call, collected, now);
    end();
    records.inc({ source }, receipt.accepted);
    rawBytes.inc(
      { source },
      collected.blocks.reduce((sum, block) => sum + block.rawBytes, 0),
    );
    return receipt;

    async function store(call: Call, collected: Collector, now: number): Promise<Receipt> {
      const keyed = idempotencyKey === undefined ? undefined : shardOf(`${tenant}:${idempotencyKey}`, shards);
      let id = keyed === undefined ? newBatchId(now) : newBatchIdOn(keyed, shards, now);
      const shard = keyed ?? shardOf(id, shards);
      const dedupeKey = idempotencyKey === undefined ? id : `key:${idempotencyKey}`;
      const bodyHash = idempotencyKey === undefined ? "" : createHash("sha256").update(call.body).digest("hex");
      const parts: { stream: string; seq: number }[] = [];
      let [accepted, rejected, duplicate] = [collected.accepted, collected.rejected, false];
      for (const [index, { builder, firstLine, rawBytes }] of collected.blocks.entries()) {
        const block = builder.finish(tenant, id, now, firstLine);
        const headers = envelopeHeaders(
          {
            schema: SCHEMA_VERSION,
            tenant,
            batch: id,
            part: index + 1,
            parts: collected.blocks.length,
            firstLine,
            records: block.records,
            accepted,
            rejected,
            bytes: rawBytes,
            minTimestamp: block.minTimestamp,
            maxTimestamp: block.maxTimestamp,
            source,
            bodyHash,
          },
          dedupeKey,
        );
        const appended = await append({ shard, tenant, headers, payload: await encodeBlock(block) });
        parts.push({ stream: appended.stream, seq: appended.seq });
        if (index === 0 && appended.duplicate && idempotencyKey !== undefined) {
          // An earlier call had this key: its receipt is the answer, and what it left unfinished is finished under its id.
          const first = await envelopeAt(appended.stream, appended.seq);
          if (first.bodyHash !== bodyHash) {
            throw new RelogError(
              "idempotency_key_reused",
              `the idempotency key belongs to batch ${first.batch}, whose body was another one`,
            );
          }
          id = first.batch;
          [accepted, rejected, duplicate] = [first.accepted, first.rejected, true];
        }
      }
      const first = parts[0]!;
      return {
        id,
        stream: first.stream,
        seq: first.seq,
        accepted,
        rejected,
        errors: collected.errors,
        ...(parts.length > 1 ? { parts } : {}),
        ...(duplicate ? { duplicate: true } : {}),
      };
    }
  };
}

function nothingToStore(collected: Collector): RelogError {
  if (collected.rejected === 0) return new RelogError("empty_body", "the request holds no record");
  return new RelogError("all_rejected", `all ${collected.rejected} records were rejected`, {
    details: { accepted: 0, rejected: collected.rejected, errors: collected.errors },
  });
}

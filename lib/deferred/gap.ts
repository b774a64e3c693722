// A gap record: what a tenant's log says where records of it were not stored.
//
// It is an ordinary record of the tenant, a batch of its own with an id that was chosen before, so that writing it again is
// storing it once.

import { BatchBuilder, encodeBlock, SCHEMA_VERSION } from "../event/batch.ts";
import { envelopeHeaders } from "../event/envelope.ts";
import { ATTRIBUTE_TYPES, RecordDraft } from "../event/record.ts";
import { toBytes } from "../event/text.ts";

export interface Gap {
  readonly tenant: string;
  /** The gap record's batch. */
  readonly batch: string;
  readonly shard: number;
  /** `quota`: dropped as they came; `grace`: deferred, and the quota had no room in time. */
  readonly cause: "quota" | "grace";
  /** The quota in words. */
  readonly reason: string;
  readonly records: number;
  /** Bytes of the records' texts, the measure of usage. */
  readonly bytes: number;
  readonly calls: number;
  /** When the first and the last of them came, milliseconds since the epoch. */
  readonly fromMs: number;
  readonly toMs: number;
}

export const GAP_EVENT = "relog.gap";
const SERVICE = "relog";
const WARN = 13;
const QUOTA_NAME = /^[a-z]+_per_[a-z]+/;

/** Seconds for people; the attributes have the milliseconds. */
const second = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");

export function gapText({ records, bytes, fromMs, toMs, reason }: Gap): string {
  return `${records} records (${bytes} bytes) were not stored between ${second(fromMs)} and ${second(toMs)}: ${reason}`;
}

/** The message of a gap record. @param nowMs when it is written, milliseconds since the epoch */
export async function gapMessage(gap: Gap, nowMs: number) {
  const draft = new RecordDraft();
  draft.seconds = Math.floor(gap.toMs / 1_000);
  draft.nanoseconds = (gap.toMs % 1_000) * 1_000_000;
  draft.severityNumber = WARN;
  draft.severityText = "WARN";
  draft.service = SERVICE;
  draft.eventName = GAP_EVENT;
  draft.body = toBytes(gapText(gap));
  for (const name of ["records", "bytes", "calls"] as const) draft.attributes.add(`gap.${name}`, String(gap[name]), ATTRIBUTE_TYPES.number);
  const texts = {
    from: new Date(gap.fromMs).toISOString(),
    to: new Date(gap.toMs).toISOString(),
    reason: gap.cause,
    quota: QUOTA_NAME.exec(gap.reason)?.[0] ?? "",
  };
  for (const [name, text] of Object.entries(texts)) draft.attributes.add(`gap.${name}`, text, ATTRIBUTE_TYPES.string);
  const builder = new BatchBuilder();
  builder.add(draft);
  const { tenant, batch, shard } = gap;
  const block = builder.finish(tenant, batch, nowMs, 0);
  const { size, minTimestamp, maxTimestamp } = block;
  const counts = { part: 1, parts: 1, firstLine: 0, records: 1, accepted: 1, rejected: 0, bytes: size, size };
  const envelope = { schema: SCHEMA_VERSION, tenant, batch, ...counts, minTimestamp, maxTimestamp, source: SERVICE, bodyHash: "" };
  const headers = envelopeHeaders({ ...envelope, observedMs: nowMs }, batch);
  return { message: { shard, tenant, headers, payload: await encodeBlock(block) }, records: 1, size };
}

// What a dead letter holds, as messages that a projection can store.
//
// Promises: only records that are what the letter's envelope says (tenant, batch, time, line) come out; a letter that holds
// everything its envelope names comes out as the very bytes that were parked; lines that are missing are said, not passed over.
// The same letter comes out the same each time.

import { messageOf } from "../base/errors.ts";
import { BatchBuilder, encodeBlock } from "../event/batch.ts";
import type { DecodedRecord } from "../event/decode.ts";
import { decodeBatch, draftOf } from "../event/decode.ts";
import type { Envelope, StoredMessage } from "../event/envelope.ts";
import { envelopeHeaders, HEADERS, readEnvelope, SUBJECTS } from "../event/envelope.ts";
import { RecordDraft } from "../event/record.ts";
import type { DeadLetter } from "../streams/dead-letters.ts";
import type { Batch, Judge } from "./message.ts";

const BLOCK_BYTES_MAX = 64 * 2 ** 20;
/** lib/streams/dead.ts cuts a list of lines to this length. */
const LINES_CHARS_MAX = 500;

/** Why it is still refused. */
interface Refusal {
  readonly reason: string;
  readonly detail: string;
}

export interface Opened {
  readonly batches: Batch[];
  readonly refusal: Refusal | undefined;
  /** Its records are past their retention: the table would delete them at once. */
  readonly expired: boolean;
}

const refused = (reason: string, detail: string): Opened => ({ batches: [], refusal: { reason, detail }, expired: false });

/** The message as its LOGS stream holds it, from a letter and the payload that belongs to it. */
export function originOf(letter: DeadLetter, payload: Uint8Array): StoredMessage {
  const { originSeq, shard, tenant, originStoredMs, storedMs, header } = letter;
  const subject = SUBJECTS.logs(shard, tenant);
  return { seq: originSeq, subject, payload, header, pairs: letter.pairs, storedMs: originStoredMs ?? storedMs };
}

/** Whether a letter's payload is a block of its own lines, and not the message as it was. */
function isSlice(letter: DeadLetter): boolean {
  return letter.lines !== "all" && letter.reason !== "records_missing" && letter.omittedBytes === undefined;
}

/**
 * The records of a letter.
 * @param message as originOf or the stream gives it
 * @param nextSeq a number for each message that comes out, which no other of the plan has
 */
export async function openLetter(letter: DeadLetter, message: StoredMessage, judge: Judge, nextSeq: () => number): Promise<Opened> {
  const envelope = readEnvelope(message.header);
  if (!isSlice(letter)) {
    const verdict = judge(message);
    if (verdict.kind === "poison") return refused(verdict.reason, verdict.detail);
    if (verdict.kind === "passed") return { batches: [], refusal: undefined, expired: true };
  }
  if ("fault" in envelope) return refused("envelope_invalid", envelope.fault);
  // A block of some lines is judged only below: its envelope speaks of the whole message.
  if (envelope.tenant !== letter.tenant) return refused("tenant_mismatch", "the letter is of another tenant than its envelope");
  let records: DecodedRecord[];
  try {
    records = await decodeBatch(message.payload, BLOCK_BYTES_MAX);
  } catch (error) {
    return refused("block_invalid", `the block cannot be opened: ${messageOf(error)}`);
  }
  const slice = isSlice(letter);
  const lines = slice ? undefined : listed(letter.lines);
  const sound = new Map<number, DecodedRecord>();
  for (const record of records)
    if (isAsSaid(record, envelope) && (lines?.has(record.line) ?? true) && !sound.has(record.line)) sound.set(record.line, record);
  const wanted = slice ? records.length : (lines?.size ?? envelope.records);
  const absent = wanted - sound.size;
  const refusal =
    absent === 0 ? undefined : { reason: "records_missing", detail: `the block lacks ${absent} lines of those that its envelope names` };
  if (!slice && lines === undefined && refusal === undefined && records.length === envelope.records) {
    return { batches: [{ kind: "batch", seq: nextSeq(), message, envelope }], refusal, expired: false };
  }
  const { batches, expired, poison } = await cut([...sound.values()], envelope, message, judge, nextSeq);
  return { batches, expired, refusal: refusal ?? poison };
}

/** The lines of a list; undefined for "all", and for a list that may have been cut. */
function listed(lines: string): ReadonlySet<number> | undefined {
  return lines.length < LINES_CHARS_MAX && /^\d+(,\d+)*$/.test(lines) ? new Set(lines.split(",").map(Number)) : undefined;
}

function isAsSaid(record: DecodedRecord, { tenant, batch, firstLine, records, minTimestamp, maxTimestamp }: Envelope): boolean {
  const timestamp = BigInt(record.timestamp);
  const inside = record.line >= firstLine && record.line < firstLine + records;
  return record.tenant === tenant && record.batch === batch && inside && timestamp >= minTimestamp && timestamp <= maxTimestamp;
}

/** One message for each run of lines: an envelope can speak of a range only. */
async function cut(records: DecodedRecord[], envelope: Envelope, origin: StoredMessage, judge: Judge, nextSeq: () => number) {
  const runs: DecodedRecord[][] = [];
  for (const record of records.sort((a, b) => a.line - b.line)) {
    const run = runs.at(-1);
    if (run === undefined || run.at(-1)!.line + 1 !== record.line) runs.push([record]);
    else run.push(record);
  }
  const batches: Batch[] = [];
  let expired = runs.length > 0;
  let poison: Refusal | undefined;
  for (const run of runs) {
    const message = await messageOfRun(run, envelope, origin);
    const verdict = judge(message);
    if (verdict.kind !== "passed") expired = false;
    if (verdict.kind === "poison") poison = { reason: verdict.reason, detail: verdict.detail };
    if (verdict.kind === "batch") batches.push({ ...verdict, seq: nextSeq() });
  }
  return { batches, expired, poison };
}

async function messageOfRun(run: readonly DecodedRecord[], envelope: Envelope, origin: StoredMessage): Promise<StoredMessage> {
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (const record of run) {
    draftOf(record, draft);
    builder.add(draft);
  }
  const firstLine = run[0]!.line;
  const observedMs = Number(BigInt(run[0]!.observed_timestamp) / 1_000_000n);
  const lines = run.map((record) => record.line);
  const block = builder.finish(envelope.tenant, envelope.batch, observedMs, lines);
  const { minTimestamp, maxTimestamp } = block;
  const pairs = envelopeHeaders(
    { ...envelope, firstLine, records: run.length, minTimestamp, maxTimestamp, size: block.size, observedMs },
    envelope.batch,
  ).filter(([name]) => name !== HEADERS.messageId);
  const headers = new Map(pairs);
  return { ...origin, payload: await encodeBlock(block), header: (name) => headers.get(name) ?? "", pairs: () => pairs };
}

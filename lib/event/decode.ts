// A batch back from its frame: records, and drafts to build another block of them.
//
// Promises: the inverse of batch.ts; decoding allocates no more than the frame promises and its caller allows.

import { promisify } from "node:util";
import { zstdDecompress } from "node:zlib";
import { COLUMNS_V1, LC, MAP } from "./batch.ts";
import { ByteReader } from "./native.ts";
import type { AttributeValue, CanonicalRecord, RecordDraft } from "./record.ts";
import { ATTRIBUTE_TYPES } from "./record.ts";
import type { ByteString } from "./text.ts";
import { fromBytes, toBytes } from "./text.ts";

const decompress = promisify(zstdDecompress);

export interface DecodedRecord extends CanonicalRecord {
  readonly tenant: string;
}

/**
 * Decodes a message's payload.
 * @param bytesMax bound on the decompressed block, in bytes
 * @throws RangeError or Error when the payload is not a block of this schema version
 */
export async function decodeBatch(payload: Uint8Array, bytesMax: number): Promise<DecodedRecord[]> {
  const bytes = await decompress(payload, { maxOutputLength: bytesMax });
  const reader = new ByteReader(bytes);
  const columns = reader.varUInt();
  const rows = reader.varUInt();
  if (columns !== COLUMNS_V1.length) throw new RangeError(`${columns} columns where schema version 1 has ${COLUMNS_V1.length}`);
  const values = COLUMNS_V1.map(([name, type]) => {
    const [gotName, gotType] = [reader.string(), reader.string()];
    if (gotName !== name || gotType !== type) throw new RangeError(`column "${gotName} ${gotType}" where "${name} ${type}" belongs`);
    return readColumn(reader, type, rows);
  });
  if (!reader.done) throw new RangeError("bytes are left after the block");
  return Array.from({ length: rows }, (_, i) => toRecord(values, i));
}

function readColumn(reader: ByteReader, type: (typeof COLUMNS_V1)[number][1], rows: number): ArrayLike<unknown> {
  switch (type) {
    case LC:
      reader.lowCardinalityPrefix();
      return reader.lowCardinality(rows);
    case MAP:
      return reader.maps(rows);
    case "DateTime64(9)":
      return reader.int64s(rows);
    case "UInt8":
      return reader.take(rows);
    case "UInt32":
      return reader.uint32s(rows);
    case "String":
      return reader.strings(rows);
    default:
      throw type satisfies never;
  }
}

const COLUMN_INDEX = new Map<string, number>(COLUMNS_V1.map(([name], i) => [name, i]));

function toRecord(columns: ArrayLike<unknown>[], row: number): DecodedRecord {
  const at = (name: string): unknown => columns[COLUMN_INDEX.get(name)!]![row];
  const textAt = (name: string): string => fromBytes(at(name) as ByteString);
  return {
    tenant: textAt("tenant"),
    timestamp: String(at("timestamp")),
    observed_timestamp: String(at("observed_timestamp")),
    severity_number: at("severity_number") as number,
    severity_text: textAt("severity_text"),
    service: textAt("service"),
    host: textAt("host"),
    event_name: textAt("event_name"),
    body: textAt("body"),
    attributes: toValues(at("attributes") as [ByteString, ByteString][], textAt("attribute_types")),
    resource: toValues(at("resource") as [ByteString, ByteString][], textAt("resource_types")),
    trace_id: textAt("trace_id"),
    span_id: textAt("span_id"),
    batch: textAt("batch"),
    line: at("line") as number,
  };
}

function toValues(pairs: [ByteString, ByteString][], types: string): Record<string, AttributeValue> {
  const values: Record<string, AttributeValue> = Object.create(null);
  for (const [i, [key, value]] of pairs.entries()) {
    const text = fromBytes(value);
    const type = types[i];
    values[fromBytes(key)] =
      type === ATTRIBUTE_TYPES.number
        ? { number: text }
        : type === ATTRIBUTE_TYPES.json
          ? { json: text }
          : type === ATTRIBUTE_TYPES.boolean
            ? text === "true"
            : text;
  }
  return values;
}

/** Fills a draft from a canonical record: the way from a decoded batch back into a block. */
export function draftOf(record: CanonicalRecord, draft: RecordDraft): void {
  draft.clear();
  const time = BigInt(record.timestamp);
  draft.seconds = Number(time / 1_000_000_000n);
  draft.nanoseconds = Number(time % 1_000_000_000n);
  draft.severityNumber = record.severity_number;
  draft.severityText = toBytes(record.severity_text);
  draft.service = toBytes(record.service);
  draft.host = toBytes(record.host);
  draft.eventName = toBytes(record.event_name);
  draft.body = toBytes(record.body);
  draft.traceId = record.trace_id;
  draft.spanId = record.span_id;
  for (const [pairs, values] of [
    [draft.attributes, record.attributes],
    [draft.resource, record.resource],
  ] as const) {
    for (const [key, value] of Object.entries(values)) {
      if (typeof value === "string") pairs.add(toBytes(key), toBytes(value), ATTRIBUTE_TYPES.string);
      else if (typeof value === "boolean") pairs.add(toBytes(key), String(value), ATTRIBUTE_TYPES.boolean);
      else if ("number" in value) pairs.add(toBytes(key), value.number, ATTRIBUTE_TYPES.number);
      else pairs.add(toBytes(key), toBytes(value.json), ATTRIBUTE_TYPES.json);
    }
  }
}

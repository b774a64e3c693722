// A batch: the records of one producer call as one ClickHouse Native block in one zstd frame (schema version 1).
//
// Promises: building and decoding are inverse; the column list and types of a schema version never change; a frame
// carries its content size and checksum; decoding allocates no more than the frame promises and its caller allows.
// docs/adr/0002-payload.md says why a block and not lines of JSON.

import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";
import { ByteReader, ByteWriter, LowCardinalityColumn, MapColumn, StringColumn } from "./native.ts";
import type { AttributeValue, CanonicalRecord, Pairs, RecordDraft } from "./record.ts";
import { ATTRIBUTE_TYPES } from "./record.ts";
import type { ByteString } from "./text.ts";
import { fromBytes, toBytes } from "./text.ts";

export const SCHEMA_VERSION = 1;

const LC = "LowCardinality(String)";
const MAP = "Map(LowCardinality(String), String)";

/** Columns of schema version 1, in order, with their ClickHouse types. */
export const COLUMNS_V1 = [
  ["tenant", LC],
  ["timestamp", "DateTime64(9)"],
  ["observed_timestamp", "DateTime64(9)"],
  ["severity_number", "UInt8"],
  ["severity_text", LC],
  ["service", LC],
  ["host", LC],
  ["event_name", LC],
  ["body", "String"],
  ["attributes", MAP],
  ["attribute_types", LC],
  ["resource", MAP],
  ["resource_types", LC],
  ["trace_id", "String"],
  ["span_id", "String"],
  ["batch", LC],
  ["line", "UInt32"],
] as const;

/** The structure argument of ClickHouse's `input()` for schema version 1. */
export const STRUCTURE_V1 = COLUMNS_V1.map(([name, type]) => `${name} ${type}`).join(", ");

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

export interface Block {
  /** The Native block, not compressed; valid until `release`. */
  readonly bytes: Buffer;
  release(): void;
  readonly records: number;
  /** Smallest and largest timestamp, nanoseconds since the epoch. */
  readonly minTimestamp: bigint;
  readonly maxTimestamp: bigint;
}

/** Bytes a record adds to a block beside its texts: numbers, lengths and indexes, rounded up. */
const RECORD_OVERHEAD_BYTES = 64;

/** Collects drafts into the columns of one block. */
export class BatchBuilder {
  readonly #severityNumbers: number[] = [];
  readonly #severityTexts = new LowCardinalityColumn();
  readonly #services = new LowCardinalityColumn();
  readonly #hosts = new LowCardinalityColumn();
  readonly #eventNames = new LowCardinalityColumn();
  readonly #bodies = new StringColumn();
  readonly #attributes = new MapColumn();
  readonly #attributeTypes = new LowCardinalityColumn();
  readonly #resource = new MapColumn();
  readonly #resourceTypes = new LowCardinalityColumn();
  readonly #traceIds = new StringColumn();
  readonly #spanIds = new StringColumn();
  readonly #seconds: number[] = [];
  readonly #nanoseconds: number[] = [];

  get records(): number {
    return this.#seconds.length;
  }

  /** Bytes of the block so far, estimated from above; depends on the records alone. */
  get bytes(): number {
    const texts = this.#bodies.bytes + this.#traceIds.bytes + this.#spanIds.bytes + this.#attributes.bytes + this.#resource.bytes;
    const dictionaries = this.#severityTexts.bytes + this.#services.bytes + this.#hosts.bytes + this.#eventNames.bytes;
    return texts + dictionaries + this.#attributeTypes.bytes + this.#resourceTypes.bytes + this.records * RECORD_OVERHEAD_BYTES;
  }

  /** Adds a copy of the draft; its time must be set. */
  add(draft: RecordDraft): void {
    this.#seconds.push(draft.seconds);
    this.#nanoseconds.push(draft.nanoseconds);
    this.#severityNumbers.push(draft.severityNumber);
    this.#severityTexts.push(draft.severityText);
    this.#services.push(draft.service);
    this.#hosts.push(draft.host);
    this.#eventNames.push(draft.eventName);
    this.#bodies.push(draft.body);
    pushPairs(this.#attributes, draft.attributes);
    this.#attributeTypes.push(draft.attributes.types);
    pushPairs(this.#resource, draft.resource);
    this.#resourceTypes.push(draft.resource.types);
    this.#traceIds.push(draft.traceId);
    this.#spanIds.push(draft.spanId);
  }

  #isBefore(a: number, b: number): boolean {
    const difference = this.#seconds[a]! - this.#seconds[b]!;
    return difference < 0 || (difference === 0 && this.#nanoseconds[a]! < this.#nanoseconds[b]!);
  }

  #time(index: number): bigint {
    return BigInt(this.#seconds[index]!) * 1_000_000_000n + BigInt(this.#nanoseconds[index]!);
  }

  /**
   * The block of everything added; ends the builder's life.
   * @param observed when the gateway saw the call, milliseconds since the epoch
   * @param lines index in the batch of the first record (a call may become several messages), or of each
   */
  finish(tenant: string, batch: string, observed: number, lines: number | readonly number[]): Block {
    const rows = this.records;
    const out = new ByteWriter(this.bytes + 4096);
    out.varUInt(COLUMNS_V1.length);
    out.varUInt(rows);
    const times = new Uint32Array(rows * 2);
    let [min, max] = [0, 0];
    for (let i = 0; i < rows; i++) {
      putNanoseconds(times, i, this.#seconds[i]!, this.#nanoseconds[i]!);
      if (this.#isBefore(i, min)) min = i;
      if (this.#isBefore(max, i)) max = i;
    }
    const observedTimes = new BigInt64Array(rows).fill(BigInt(observed) * 1_000_000n);
    const indexes = Uint32Array.from({ length: rows }, (_, i) => (typeof lines === "number" ? lines + i : lines[i]!));
    const writers = [
      () => writeConstant(out, tenant, rows),
      () => out.raw(new Uint8Array(times.buffer)),
      () => out.raw(new Uint8Array(observedTimes.buffer)),
      () => out.raw(new Uint8Array(this.#severityNumbers)),
      () => writeLowCardinality(out, this.#severityTexts),
      () => writeLowCardinality(out, this.#services),
      () => writeLowCardinality(out, this.#hosts),
      () => writeLowCardinality(out, this.#eventNames),
      () => this.#bodies.write(out),
      () => this.#attributes.write(out),
      () => writeLowCardinality(out, this.#attributeTypes),
      () => this.#resource.write(out),
      () => writeLowCardinality(out, this.#resourceTypes),
      () => this.#traceIds.write(out),
      () => this.#spanIds.write(out),
      () => writeConstant(out, batch, rows),
      () => out.raw(new Uint8Array(indexes.buffer)),
    ];
    for (const [i, [name, type]] of COLUMNS_V1.entries()) {
      out.string(name);
      out.string(type);
      writers[i]!();
    }
    return { bytes: out.view(), release: () => out.release(), records: rows, minTimestamp: this.#time(min), maxTimestamp: this.#time(max) };
  }
}

/** Writes a time as the 64-bit little-endian number of its nanoseconds, as two halves: 64-bit integers are slow in JavaScript. */
function putNanoseconds(halves: Uint32Array, index: number, seconds: number, nanoseconds: number): void {
  // seconds < 2^34: its two parts times 1e9 stay below 2^53.
  const upper = Math.floor(seconds / 65_536) * 1e9;
  const lower = (seconds % 65_536) * 1e9 + nanoseconds;
  const low = (upper % 65_536) * 65_536 + (lower % 2 ** 32);
  halves[index * 2] = low % 2 ** 32;
  halves[index * 2 + 1] = Math.floor(upper / 65_536) + Math.floor(lower / 2 ** 32) + (low >= 2 ** 32 ? 1 : 0);
}

function pushPairs(column: MapColumn, pairs: Pairs): void {
  for (let i = 0; i < pairs.count; i++) {
    column.keys.push(pairs.keys[i]!);
    column.values.push(pairs.values[i]!);
  }
  column.endRow();
}

function writeLowCardinality(out: ByteWriter, column: LowCardinalityColumn): void {
  column.writePrefix(out);
  column.write(out);
}

function writeConstant(out: ByteWriter, value: string, rows: number): void {
  const column = new LowCardinalityColumn();
  const id = column.id(toBytes(value));
  for (let i = 0; i < rows; i++) column.pushId(id);
  writeLowCardinality(out, column);
}

/** The frame of a block: zstd level 1, with content size and checksum. Ends the block's life. */
export async function encodeBlock(block: Block): Promise<Buffer> {
  const frame = await compress(block.bytes, {
    // One chunk: the default of 16 KiB comes back to JavaScript for each.
    chunkSize: block.bytes.length + 1024,
    pledgedSrcSize: block.bytes.length,
    params: { [constants.ZSTD_c_compressionLevel]: 1, [constants.ZSTD_c_checksumFlag]: 1, [constants.ZSTD_c_contentSizeFlag]: 1 },
  });
  block.release();
  return frame;
}

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

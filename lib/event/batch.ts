// A batch: the records of one producer call as one ClickHouse Native block in one zstd frame (schema version 1).
//
// Promises: building and decoding (decode.ts) are inverse; the column list and types of a schema version never change; a frame
// carries its content size and checksum.
// docs/adr/0002-payload.md says why a block and not lines of JSON.

import { promisify } from "node:util";
import { constants, zstdCompress, zstdCompressSync } from "node:zlib";
import { ByteWriter, LowCardinalityColumn, MapColumn, StringColumn } from "./native.ts";
import type { Pairs, RecordDraft } from "./record.ts";
import type { ByteString } from "./text.ts";
import { toBytes } from "./text.ts";

export const SCHEMA_VERSION = 1;

export const LC = "LowCardinality(String)";
export const MAP = "Map(LowCardinality(String), String)";

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

export interface Block {
  /** The Native block, not compressed; valid until `release`. */
  readonly bytes: Buffer;
  release(): void;
  readonly records: number;
  /** See BatchBuilder.size. */
  readonly size: number;
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
  #size = 0;

  get records(): number {
    return this.#seconds.length;
  }

  /**
   * Bytes of the records' texts: severity text, service, host, event name, body, ids, and the names and values of attributes and
   * resource. It does not depend on the protocol; the table's column `bytes` is the same by SQL.
   */
  get size(): number {
    return this.#size;
  }

  /** Bytes of the block so far, estimated from above; depends on the records alone. */
  get bytes(): number {
    const texts = this.#bodies.bytes + this.#traceIds.bytes + this.#spanIds.bytes + this.#attributes.bytes + this.#resource.bytes;
    const dictionaries = this.#severityTexts.bytes + this.#services.bytes + this.#hosts.bytes + this.#eventNames.bytes;
    return texts + dictionaries + this.#attributeTypes.bytes + this.#resourceTypes.bytes + this.records * RECORD_OVERHEAD_BYTES;
  }

  /** Names of attributes and resource attributes so far, each of them once a column. */
  get names(): readonly (readonly ByteString[])[] {
    return [this.#attributes.keys.dictionary, this.#resource.keys.dictionary];
  }

  /** Ends the builder's life without a block. */
  discard(): void {
    for (const column of [this.#bodies, this.#attributes.values, this.#resource.values, this.#traceIds, this.#spanIds]) column.discard();
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
    const pairs = pushPairs(this.#attributes, draft.attributes) + pushPairs(this.#resource, draft.resource);
    const names = draft.severityText.length + draft.service.length + draft.host.length + draft.eventName.length;
    this.#size += draft.body.length + draft.traceId.length + draft.spanId.length + names + pairs;
    this.#attributeTypes.push(draft.attributes.types);
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
    const [minTimestamp, maxTimestamp] = [this.#time(min), this.#time(max)];
    return { bytes: out.view(), release: () => out.release(), records: rows, size: this.#size, minTimestamp, maxTimestamp };
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

/** Returns the bytes of the pairs. */
function pushPairs(column: MapColumn, pairs: Pairs): number {
  let size = 0;
  for (let i = 0; i < pairs.count; i++) {
    const [key, value] = [pairs.keys[i]!, pairs.values[i]!];
    column.keys.push(key);
    column.values.push(value);
    size += key.length + value.length;
  }
  column.endRow();
  return size;
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

/**
 * So much is compressed sooner than it is handed to another thread, and nothing waits for two threads to be given a core (docs/adr/0002).
 */
const COMPRESSED_HERE_BYTES_MAX = 64 * 1024;

/** The frame of a block: zstd level 1, with content size and checksum. Ends the block's life. */
export async function encodeBlock(block: Block): Promise<Buffer> {
  const { length } = block.bytes;
  const options = {
    // One chunk: the default of 16 KiB comes back to JavaScript for each.
    chunkSize: length + 1024,
    pledgedSrcSize: length,
    params: { [constants.ZSTD_c_compressionLevel]: 1, [constants.ZSTD_c_checksumFlag]: 1, [constants.ZSTD_c_contentSizeFlag]: 1 },
  };
  const frame = length <= COMPRESSED_HERE_BYTES_MAX ? zstdCompressSync(block.bytes, options) : await compress(block.bytes, options);
  block.release();
  return frame;
}

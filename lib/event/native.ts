// ClickHouse's Native format: the columnar bytes that batches travel in.
//
// A block is: VarUInt columns, VarUInt rows, then for each column its name, its type (both length-prefixed) and its values.
// Source of the layout: ClickHouse documentation, "Native" format, and the LowCardinality serialization (version 1,
// additional keys only), as its own client libraries write it without a protocol revision.
// Writers append to one growing buffer; the reader checks every length against what is there and throws RangeError on
// anything else, so that a hostile block costs no memory.

import { giveBuffer, takeBuffer } from "../base/buffers.ts";
import type { ByteString } from "./text.ts";

const EMPTY = Buffer.alloc(0);
const LC_VERSION = 1;
/** "Has additional keys": the keys follow; there is no shared dictionary. */
const LC_HAS_KEYS = 1 << 9;

/** An append-only buffer that grows by doubling. Its memory comes from the pool; `release` gives it back. */
export class ByteWriter {
  buffer: Buffer;
  length = 0;

  constructor(initialBytes = 0) {
    this.buffer = takeBuffer(initialBytes);
  }

  /** Ends the writer's life and that of every view of it. */
  release(): void {
    giveBuffer(this.buffer);
    this.buffer = EMPTY;
    this.length = 0;
  }

  reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return;
    const grown = takeBuffer(Math.max(this.buffer.length * 2, this.length + bytes));
    this.buffer.copy(grown, 0, 0, this.length);
    giveBuffer(this.buffer);
    this.buffer = grown;
  }

  varUInt(value: number): void {
    this.reserve(10);
    let rest = value;
    while (rest > 127) {
      this.buffer[this.length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.length++] = rest;
  }

  uint64(value: number): void {
    this.reserve(8);
    this.buffer.writeUInt32LE(value >>> 0, this.length);
    this.buffer.writeUInt32LE(Math.floor(value / 2 ** 32), this.length + 4);
    this.length += 8;
  }

  string(value: ByteString): void {
    this.varUInt(value.length);
    this.reserve(value.length);
    this.length += this.buffer.write(value, this.length, "latin1");
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** The bytes written so far; a view that the next write may overwrite. */
  view(): Buffer {
    return this.buffer.subarray(0, this.length);
  }
}

/** Texts up to this length are copied char by char: a call into Node's encoder costs more. Measured; docs/adr/0003. */
const SHORT_BYTES = 24;

/** Values of a String column, in their final form. */
export class StringColumn {
  readonly #bytes = new ByteWriter();
  length = 0;

  /** Bytes written so far. */
  get bytes(): number {
    return this.#bytes.length;
  }

  push(value: ByteString): void {
    const out = this.#bytes;
    const size = value.length;
    this.length++;
    out.varUInt(size);
    out.reserve(size);
    if (size > SHORT_BYTES) {
      out.length += out.buffer.write(value, out.length, "latin1");
      return;
    }
    const { buffer } = out;
    let at = out.length;
    for (let i = 0; i < size; i++) buffer[at++] = value.charCodeAt(i);
    out.length = at;
  }

  /** Writes the values and ends the column's life. */
  write(out: ByteWriter): void {
    out.raw(this.#bytes.view());
    this.discard();
  }

  /** Ends the column's life. */
  discard(): void {
    this.#bytes.release();
  }
}

/** Values of a LowCardinality(String) column: a dictionary and an index a value. */
export class LowCardinalityColumn {
  readonly #ids = new Map<ByteString, number>();
  readonly #keys: ByteString[] = [];
  readonly #indexes: number[] = [];
  #keyBytes = 0;

  /** Upper estimate of the bytes written: dictionary and indexes. */
  get bytes(): number {
    return this.#keyBytes + this.#indexes.length;
  }

  get length(): number {
    return this.#indexes.length;
  }

  /** Every value that there is, once. */
  get dictionary(): readonly ByteString[] {
    return this.#keys;
  }

  /** The dictionary id of a key, for pushing it many times. Ids stay valid for the life of the column. */
  id(key: ByteString): number {
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.#keys.push(key) - 1;
    this.#ids.set(key, id);
    this.#keyBytes += key.length + 4;
    return id;
  }

  push(key: ByteString): void {
    this.#indexes.push(this.id(key));
  }

  pushId(id: number): void {
    this.#indexes.push(id);
  }

  writePrefix(out: ByteWriter): void {
    out.uint64(LC_VERSION);
  }

  write(out: ByteWriter): void {
    if (this.#indexes.length === 0) return;
    const width = this.#keys.length <= 0x100 ? 0 : this.#keys.length <= 0x10000 ? 1 : 2;
    out.uint64(LC_HAS_KEYS | width);
    out.uint64(this.#keys.length);
    for (const key of this.#keys) out.string(key);
    out.uint64(this.#indexes.length);
    const Index = [Uint8Array, Uint16Array, Uint32Array][width]!;
    const indexes = new Index(this.#indexes);
    out.raw(new Uint8Array(indexes.buffer));
  }
}

/** Values of a Map(LowCardinality(String), String) column. */
export class MapColumn {
  readonly keys = new LowCardinalityColumn();
  readonly values = new StringColumn();
  readonly #ends: number[] = [];

  get bytes(): number {
    return this.keys.bytes + this.values.bytes;
  }

  /** Closes the row: every pair pushed since the last call belongs to it. */
  endRow(): void {
    this.#ends.push(this.values.length);
  }

  write(out: ByteWriter): void {
    this.keys.writePrefix(out);
    // 64-bit little-endian values whose upper halves stay zero: a block has less than 2^32 pairs.
    const ends = new Uint32Array(this.#ends.length * 2);
    for (let i = 0; i < this.#ends.length; i++) ends[i * 2] = this.#ends[i]!;
    out.raw(new Uint8Array(ends.buffer));
    this.keys.write(out);
    this.values.write(out);
  }
}

/** Reads what the writers wrote. @throws RangeError on bytes that end early or lengths that cannot be */
export class ByteReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  take(length: number): Buffer {
    if (!(length >= 0 && this.#at + length <= this.#bytes.length)) {
      throw new RangeError(`block ends early: ${length} bytes wanted at byte ${this.#at} of ${this.#bytes.length}`);
    }
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  varUInt(): number {
    let value = 0;
    for (let shift = 0; shift < 49; shift += 7) {
      const byte = this.take(1)[0]!;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw new RangeError(`number too large at byte ${this.#at}`);
  }

  uint64(): number {
    const bytes = this.take(8);
    const value = bytes.readUInt32LE(0) + bytes.readUInt32LE(4) * 2 ** 32;
    if (!Number.isSafeInteger(value)) throw new RangeError(`number too large at byte ${this.#at}`);
    return value;
  }

  string(): ByteString {
    return this.take(this.varUInt()).toString("latin1");
  }

  strings(count: number): ByteString[] {
    this.#plausible(count, 1);
    return Array.from({ length: count }, () => this.string());
  }

  int64s(count: number): BigInt64Array {
    const bytes = this.take(count * 8);
    return new BigInt64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  }

  uint32s(count: number): Uint32Array {
    const bytes = this.take(count * 4);
    return new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  }

  lowCardinalityPrefix(): void {
    const version = this.uint64();
    if (version !== LC_VERSION) throw new RangeError(`LowCardinality version ${version} is not known`);
  }

  lowCardinality(count: number): ByteString[] {
    if (count === 0) return [];
    const flags = this.uint64();
    const width = flags & 0xff;
    if ((flags & LC_HAS_KEYS) === 0 || width > 2) throw new RangeError(`LowCardinality flags ${flags} are not known`);
    const keys = this.strings(this.uint64());
    const rows = this.uint64();
    if (rows !== count) throw new RangeError(`${rows} LowCardinality values where ${count} were expected`);
    const bytes = this.take(count * (1 << width));
    return Array.from({ length: count }, (_, i) => {
      const id = width === 0 ? bytes[i]! : width === 1 ? bytes.readUInt16LE(i * 2) : bytes.readUInt32LE(i * 4);
      const key = keys[id];
      if (key === undefined) throw new RangeError(`LowCardinality index ${id} is outside its ${keys.length} keys`);
      return key;
    });
  }

  /** A Map column as one array of pairs a row. */
  maps(count: number): [ByteString, ByteString][][] {
    this.lowCardinalityPrefix();
    this.#plausible(count, 8);
    const ends = Array.from({ length: count }, () => this.uint64());
    const total = ends.at(-1) ?? 0;
    this.#plausible(total, 1);
    const keys = this.lowCardinality(total);
    const values = this.strings(total);
    let from = 0;
    return ends.map((end) => {
      if (end < from || end > total) throw new RangeError("map offsets run backwards");
      const row = keys.slice(from, end).map((key, i): [ByteString, ByteString] => [key, values[from + i]!]);
      from = end;
      return row;
    });
  }

  /** Refuses a count that the rest of the bytes cannot hold, before anything is allocated for it. */
  #plausible(count: number, bytesEach: number): void {
    if (count * bytesEach > this.#bytes.length - this.#at) throw new RangeError(`${count} values cannot be in the rest of the block`);
  }
}

// What usage counts of a message, recomputed from its payload and from nothing else.

import { promisify } from "node:util";
import { zstdDecompress } from "node:zlib";
import { COLUMNS_V1, LC, MAP } from "../event/batch.ts";
import { ByteReader } from "../event/native.ts";
import type { ByteString } from "../event/text.ts";
import { fromBytes } from "../event/text.ts";

const decompress = promisify(zstdDecompress);
/** A block that claims to be larger than this once decompressed is no batch of ours. */
const BLOCK_BYTES_MAX = 64 * 2 ** 20;
/** Columns whose texts are counted. */
const COUNTED: ReadonlySet<string> = new Set([
  "severity_text",
  "service",
  "host",
  "event_name",
  "body",
  "attributes",
  "resource",
  "trace_id",
  "span_id",
]);

/** A message's records, by columns. */
export interface Measured {
  readonly records: number;
  readonly lines: ArrayLike<number>;
  /** Nanoseconds since the epoch. */
  readonly times: ArrayLike<bigint>;
  readonly observed: ArrayLike<bigint>;
  readonly services: readonly string[];
  /** Bytes of texts. */
  readonly sizes: ArrayLike<number>;
}

/** Measures a payload. @throws RangeError or Error when it is no block of schema version 1 */
export async function measure(payload: Uint8Array): Promise<Measured> {
  const reader = new ByteReader(await decompress(payload, { maxOutputLength: BLOCK_BYTES_MAX }));
  const columns = reader.varUInt();
  const records = reader.varUInt();
  if (columns !== COLUMNS_V1.length) throw new RangeError(`${columns} columns where schema version 1 has ${COLUMNS_V1.length}`);
  const sizes: number[] = [];
  const kept = new Map<string, unknown>();
  for (const [name, type] of COLUMNS_V1) {
    const [gotName, gotType] = [reader.string(), reader.string()];
    if (gotName !== name || gotType !== type) throw new RangeError(`column "${gotName} ${gotType}" where "${name} ${type}" belongs`);
    kept.set(name, readColumn(reader, type, records, COUNTED.has(name) ? sizes : undefined));
  }
  if (!reader.done) throw new RangeError("bytes are left after the block");
  const names = new Map<ByteString, string>();
  const nameOf = (bytes: ByteString): string => {
    const known = names.get(bytes) ?? fromBytes(bytes);
    names.set(bytes, known);
    return known;
  };
  return {
    records,
    lines: kept.get("line") as ArrayLike<number>,
    times: kept.get("timestamp") as ArrayLike<bigint>,
    observed: kept.get("observed_timestamp") as ArrayLike<bigint>,
    services: (kept.get("service") as ByteString[]).map(nameOf),
    sizes: records === 0 ? [] : sizes,
  };
}

/** The column's values, as far as they are needed; the lengths of its texts are added to `sizes`. */
function readColumn(reader: ByteReader, type: (typeof COLUMNS_V1)[number][1], rows: number, sizes: number[] | undefined): unknown {
  switch (type) {
    case LC:
    case "String": {
      if (type === LC) reader.lowCardinalityPrefix();
      const texts = type === LC ? reader.lowCardinality(rows) : reader.strings(rows);
      if (sizes !== undefined) for (let i = 0; i < rows; i++) sizes[i] = (sizes[i] ?? 0) + texts[i]!.length;
      return texts;
    }
    case MAP: {
      const maps = reader.maps(rows);
      if (sizes !== undefined)
        for (let i = 0; i < rows; i++) for (const [key, value] of maps[i]!) sizes[i] = (sizes[i] ?? 0) + key.length + value.length;
      return undefined;
    }
    case "DateTime64(9)":
      return reader.int64s(rows);
    case "UInt8":
      reader.take(rows);
      return undefined;
    case "UInt32":
      return reader.uint32s(rows);
    default:
      throw type satisfies never;
  }
}

// E: what the codec itself costs, beside the obvious way: JSON in, JSON out, zstd.

import { constants, zstdCompressSync } from "node:zlib";
import { bodies } from "../../lib/load/generator.ts";
import { frameOf } from "./frames.ts";
import type { BenchOptions } from "./options.ts";
import { TENANT } from "./stage.ts";
import { corpusOf } from "./whole-path.ts";

export interface Codec {
  readonly records: number;
  /** CPU seconds a million records, all threads; the best of a few rounds. */
  readonly blockS: number;
  readonly jsonS: number;
  readonly jsonParseOnlyS: number;
  readonly blockBytesPerRecord: number;
  readonly jsonBytesPerRecord: number;
}

const ROUNDS = 6;
const ZSTD_1 = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

async function bestOf(all: readonly Buffer[], work: (body: Buffer) => Promise<number> | number): Promise<{ cpuS: number; bytes: number }> {
  let best = Number.POSITIVE_INFINITY;
  let bytes = 0;
  for (let round = 0; round < ROUNDS; round++) {
    bytes = 0;
    const begin = process.cpuUsage();
    for (const body of all) bytes += await work(body);
    const { user, system } = process.cpuUsage(begin);
    best = Math.min(best, (user + system) / 1e6);
  }
  return { cpuS: best, bytes };
}

/** The canonical object that a gateway would have to write if batches were lines of JSON. */
function canonical(record: unknown, line: number): Record<string, unknown> {
  const { timestamp, level, service, host, message, ...rest } = record as Record<string, unknown>;
  const attributes: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(rest)) {
    if (typeof value !== "object" || value === null) attributes[key] = value;
    else for (const [inner, leaf] of Object.entries(value)) attributes[`${key}.${inner}`] = leaf;
  }
  const observed_timestamp = timestamp;
  return {
    timestamp,
    observed_timestamp,
    severity_number: 9,
    severity_text: level,
    service,
    host,
    body: message,
    attributes,
    resource: {},
    trace_id: "",
    span_id: "",
    event_name: "",
    batch: BATCH,
    line,
  };
}

const BATCH = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

const parsed = (body: Buffer): unknown[] =>
  body
    .toString("utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);

export async function codec(options: BenchOptions): Promise<Codec> {
  const records = options.codecRecords;
  const all = await Array.fromAsync(bodies(corpusOf(options, records)));
  const block = await bestOf(all, async (body) => (await frameOf(body, TENANT)).bytes.length);
  const json = await bestOf(
    all,
    (body) =>
      zstdCompressSync(
        parsed(body)
          .map((record, line) => JSON.stringify(canonical(record, line)))
          .join("\n"),
        ZSTD_1,
      ).length,
  );
  const parseOnly = await bestOf(all, (body) => parsed(body).length);
  const perMillion = (seconds: number): number => (seconds * 1e6) / records;
  return {
    records,
    blockS: perMillion(block.cpuS),
    jsonS: perMillion(json.cpuS),
    jsonParseOnlyS: perMillion(parseOnly.cpuS),
    blockBytesPerRecord: block.bytes / records,
    jsonBytesPerRecord: json.bytes / records,
  };
}

// schemas/event: the JSON Schema of a record and the test vectors of the wire form.

import { z } from "zod";
import { BatchBuilder, SCHEMA_VERSION } from "../../lib/event/batch.ts";
import { draftOf } from "../../lib/event/decode.ts";
import { envelopeHeaders } from "../../lib/event/envelope.ts";
import type { AttributeValue, CanonicalRecord } from "../../lib/event/record.ts";
import { canonicalRecord, RecordDraft } from "../../lib/event/record.ts";

const DESCRIPTIONS: Readonly<Record<keyof CanonicalRecord, string>> = {
  timestamp: "When it happened: nanoseconds since 1970-01-01 UTC as decimal text, at most 9223372036854775807.",
  observed_timestamp: "When the gateway saw it: nanoseconds since 1970-01-01 UTC as decimal text, whole milliseconds.",
  severity_number: "OpenTelemetry SeverityNumber, 1 (TRACE) to 24 (FATAL4); 0 when it is not known.",
  severity_text: "The level as the producer wrote it; empty when there was none.",
  service: "Name of the service; empty when there was none.",
  host: "Name of the host; empty when there was none.",
  event_name: "OpenTelemetry EventName; empty when there was none.",
  body: "The message.",
  attributes: "Attributes under flat, dotted keys.",
  resource: "Resource attributes under flat, dotted keys.",
  trace_id: "32 lower-case hexadecimal digits, or empty.",
  span_id: "16 lower-case hexadecimal digits, or empty.",
  batch: "Id of the batch: a ULID.",
  line: "Index of the record among the accepted ones of its batch, from 0; (batch, line) identifies a record for ever.",
};

export function recordSchema(): string {
  const { $schema, properties, ...schema } = z.toJSONSchema(canonicalRecord) as { $schema: string; properties: Record<string, object> };
  const described = Object.entries(properties).map(([name, property]) => [
    name,
    { description: DESCRIPTIONS[name as keyof CanonicalRecord], ...property },
  ]);
  const head = {
    $schema,
    title: "relog record, schema version 1",
    description:
      "One log record in the OpenTelemetry log data model. An attribute is a string, a boolean, {number: literal} or {json: text}.",
  };
  return `${JSON.stringify({ ...head, ...schema, properties: Object.fromEntries(described) }, null, 2)}\n`;
}

export interface Vector {
  readonly about: string;
  readonly tenant: string;
  readonly batch: string;
  readonly observed_ms: number;
  readonly first_line: number;
  readonly records: readonly CanonicalRecord[];
  readonly headers: Readonly<Record<string, string>>;
  /** The Native block before compression. */
  readonly block_base64: string;
}

const BATCH = "01JGFJJZ008XQVG3S7J5X9TN4W";
const OBSERVED_MS = 1_735_689_600_123;

function record(line: number, fields: Partial<CanonicalRecord> = {}): CanonicalRecord {
  return {
    timestamp: `1735689600${String(line).padStart(9, "0")}`,
    observed_timestamp: String(BigInt(OBSERVED_MS) * 1_000_000n),
    severity_number: 9,
    severity_text: "info",
    service: "api",
    host: "host-1",
    event_name: "",
    body: "hello",
    attributes: {},
    resource: {},
    trace_id: "",
    span_id: "",
    batch: BATCH,
    line,
    ...fields,
  };
}

const many = (count: number, fields: (line: number) => Partial<CanonicalRecord>): CanonicalRecord[] =>
  Array.from({ length: count }, (_, line) => record(line, fields(line)));

const TYPES: Record<string, AttributeValue> = {
  text: "a",
  empty: "",
  yes: true,
  no: false,
  integer: { number: "42" },
  "beyond.2^53": { number: "9007199254740993" },
  "beyond.2^64": { number: "-123456789012345678901234567890" },
  literal: { number: "1.50E+10" },
  null: { json: "null" },
  list: { json: '[1, "two", {"three": 3}]' },
};

const RECORDS: Readonly<Record<string, readonly [about: string, records: readonly CanonicalRecord[], firstLine?: number]>> = {
  minimal: ["one record with nothing but a time and a body", [record(0, { severity_number: 0, severity_text: "", service: "", host: "" })]],
  unicode: [
    "text is UTF-8: two, three and four bytes, combining marks, right to left, a replacement character",
    [record(0, { body: "Grüße, 世界 👩‍🚀 e\u0301 שלום \ufffd", service: "größe", attributes: { "schlüssel.🔑": "wert ✓" } })],
  ],
  "control-characters": [
    "NUL and other control characters are text",
    [record(0, { body: "a\u0000b\tc\nd\u001b[0m\u007f", attributes: { "k\u0000": "\u0000" } })],
  ],
  "empty-maps": [
    "attributes on some records only",
    [record(0), record(1, { attributes: { a: "1" } }), record(2), record(3, { resource: { b: "2" } })],
  ],
  "attribute-types": [
    "every attribute type; numbers keep their literal",
    [record(0, { attributes: TYPES, resource: { "service.name": "api", pid: { number: "7" } } })],
  ],
  "300-services": [
    "more than 256 dictionary keys: indexes are UInt16",
    many(300, (line) => ({ service: `service-${line}`, attributes: { [`key-${line}`]: "v" } })),
  ],
  "long-text": [
    "texts of 127, 128 and 20000 bytes: lengths of one, two and three bytes",
    many(3, (line) => ({ body: "x".repeat([127, 128, 20_000][line]!) })),
  ],
  timestamps: [
    "the smallest and the largest time, and each digit of a second",
    many(4, (line) => ({ timestamp: ["0", "9223372036854775807", "1", "1735689600123456789"][line]! })),
  ],
  "ids-and-severities": [
    "trace and span ids, every severity number, a first line other than 0 (the second message of a call)",
    Array.from({ length: 25 }, (_, i) =>
      record(500 + i, {
        severity_number: i,
        severity_text: `S${i}`,
        event_name: "tick",
        trace_id: "0af7651916cd43dd8448eb211c80319c",
        span_id: "b7ad6b7169203331",
      }),
    ),
    500,
  ],
};

function vector(about: string, records: readonly CanonicalRecord[], firstLine: number): Vector {
  const tenant = "acme";
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (const one of records) {
    draftOf(one, draft);
    builder.add(draft);
  }
  const block = builder.finish(tenant, BATCH, OBSERVED_MS, firstLine);
  const [part, parts] = firstLine === 0 ? [1, 1] : [2, 2];
  const headers = envelopeHeaders(
    {
      schema: SCHEMA_VERSION,
      tenant,
      batch: BATCH,
      part,
      parts,
      firstLine,
      records: records.length,
      accepted: firstLine + records.length,
      rejected: 0,
      bytes: 1000,
      minTimestamp: block.minTimestamp,
      maxTimestamp: block.maxTimestamp,
      source: "ndjson",
      bodyHash: "",
      size: block.size,
      observedMs: OBSERVED_MS,
    },
    BATCH,
  );
  const bytes = block.bytes.toString("base64");
  block.release();
  return {
    about,
    tenant,
    batch: BATCH,
    observed_ms: OBSERVED_MS,
    first_line: firstLine,
    records,
    headers: Object.fromEntries(headers),
    block_base64: bytes,
  };
}

/** File name -> text. */
export function vectors(): Map<string, string> {
  return new Map(
    Object.entries(RECORDS).map(([name, [about, records, firstLine = 0]]) => [
      `schemas/event/vectors/${name}.json`,
      `${JSON.stringify(vector(about, records, firstLine), null, 1)}\n`,
    ]),
  );
}

// One log record, in the OpenTelemetry log data model, as the house speaks of it.
//
// `CanonicalRecord` is the model (schemas/event/v1.json says the same for other languages); `RecordDraft` is the mutable
// form that decoders fill on the hot path, one draft for a whole request.
// Source of names and severity numbers: OpenTelemetry Logs Data Model, stable.

import { z } from "zod";
import type { ByteString } from "./text.ts";

/** Kinds of attribute values; the letter is what `attribute_types` holds. Numbers keep their JSON literal, everything else JSON text. */
export const ATTRIBUTE_TYPES = { string: "s", number: "n", boolean: "b", json: "j" } as const;
export type AttributeType = (typeof ATTRIBUTE_TYPES)[keyof typeof ATTRIBUTE_TYPES];

const attributeValue = z.union([z.string(), z.boolean(), z.strictObject({ number: z.string() }), z.strictObject({ json: z.string() })]);
const nanoseconds = z
  .string()
  .regex(/^\d{1,19}$/)
  .refine((text) => BigInt(text) < 2n ** 63n, "beyond 63 bits");

/** The canonical record, schema version 1, with nanoseconds as decimal text so that JSON keeps them exact. */
export const canonicalRecord = z.strictObject({
  timestamp: nanoseconds,
  observed_timestamp: nanoseconds,
  severity_number: z.number().int().min(0).max(24),
  severity_text: z.string(),
  service: z.string(),
  host: z.string(),
  event_name: z.string(),
  body: z.string(),
  attributes: z.record(z.string(), attributeValue),
  resource: z.record(z.string(), attributeValue),
  trace_id: z.string().regex(/^([0-9a-f]{32})?$/),
  span_id: z.string().regex(/^([0-9a-f]{16})?$/),
  batch: z.string().regex(/^[0-9A-HJKMNP-TV-Z]{26}$/),
  line: z.number().int().min(0).max(0xffffffff),
});

export type CanonicalRecord = z.infer<typeof canonicalRecord>;
export type AttributeValue = z.infer<typeof attributeValue>;

/** A run of type letters. Records repeat them, and the same object has its text's hash at hand. */
interface Letters {
  readonly text: string;
  readonly next: Partial<Record<AttributeType, Letters>>;
}

const NO_LETTERS: Letters = { text: "", next: {} };
/** Runs that are remembered; hostile producers make new ones without end. */
const LETTERS_MAX = 10_000;
let lettersKept = 0;

function extended(letters: Letters, type: AttributeType): Letters {
  const known = letters.next[type];
  if (known !== undefined) return known;
  const made: Letters = { text: letters.text + type, next: {} };
  if (lettersKept < LETTERS_MAX) {
    lettersKept++;
    letters.next[type] = made;
  }
  return made;
}

/** Flat pairs of one record: keys, texts and one type letter each, in step. What lies at or behind `count` is of an earlier record. */
export class Pairs {
  readonly keys: ByteString[] = [];
  readonly values: ByteString[] = [];
  count = 0;
  #letters = NO_LETTERS;

  get types(): string {
    return this.#letters.text;
  }

  clear(): void {
    this.count = 0;
    this.#letters = NO_LETTERS;
  }

  /** Adds a pair. The caller sees to it that no key is there twice. */
  add(key: ByteString, value: ByteString, type: AttributeType): void {
    this.keys[this.count] = key;
    this.values[this.count++] = value;
    this.#letters = extended(this.#letters, type);
  }
}

/** What a decoder fills for each record. Texts are byte strings. */
export class RecordDraft {
  /** Whole seconds since the epoch; -1 when the record names no time. */
  seconds = -1;
  /** Nanoseconds within the second. */
  nanoseconds = 0;
  severityNumber = 0;
  severityText: ByteString = "";
  service: ByteString = "";
  host: ByteString = "";
  eventName: ByteString = "";
  body: ByteString = "";
  traceId: ByteString = "";
  spanId: ByteString = "";
  readonly attributes = new Pairs();
  readonly resource = new Pairs();

  clear(): void {
    this.seconds = -1;
    this.nanoseconds = 0;
    this.severityNumber = 0;
    this.severityText = "";
    this.service = "";
    this.host = "";
    this.eventName = "";
    this.body = "";
    this.traceId = "";
    this.spanId = "";
    this.attributes.clear();
    this.resource.clear();
  }
}

/** A record that cannot be stored: bad data is a verdict, not an exception. */
export interface Rejection {
  /** 1-based number of the line (or array element) in the request. */
  readonly line: number;
  readonly code: RejectionCode;
  readonly message: string;
}

const REJECTION_CODES = [
  "invalid_json",
  "invalid_utf8",
  "not_an_object",
  "record_too_large",
  "too_many_attributes",
  "too_deep",
  "key_too_long",
  "timestamp_invalid",
  "timestamp_in_future",
] as const;
export type RejectionCode = (typeof REJECTION_CODES)[number];

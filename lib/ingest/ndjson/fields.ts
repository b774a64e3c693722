// Which field of a JSON record means what.
//
// Promises: the first name of a list wins when a record has several; a value that loses, or that cannot be what its name
// says, stays in the record as an attribute. Names are matched on the flattened key, so {"service":{"name":"x"}} is
// `service.name`.

import type { AttributeType, Pairs, RecordDraft } from "../../event/record.ts";
import { ATTRIBUTE_TYPES } from "../../event/record.ts";
import { severityNumberOf } from "../../event/severity.ts";
import type { ByteString } from "../../event/text.ts";
import { fromBytes, owned, toBytes } from "../../event/text.ts";
import { parseTime } from "../../event/time.ts";
import type { KeyNode } from "./scan.ts";
import { JsonError } from "./scan.ts";

/** The mapped fields, with the names each is known by when the request renames nothing. */
const FIELD_NAMES = {
  time: ["timestamp", "@timestamp", "time", "ts", "_time", "datetime", "eventTime"],
  message: ["message", "msg", "body", "log", "_msg", "text"],
  level: ["level", "severity", "severity_text", "severityText", "log.level", "loglevel", "log_level", "lvl", "levelname"],
  service: ["service", "service.name", "service_name", "app", "application", "resource.service.name"],
  host: ["host", "hostname", "host.name", "host_name", "resource.host.name"],
  trace: ["trace_id", "traceId", "trace.id", "traceid", "dd.trace_id"],
  span: ["span_id", "spanId", "span.id", "spanid", "dd.span_id"],
  event: ["event_name", "eventName", "event.name"],
  severity_number: ["severity_number", "severityNumber"],
} as const;

export type Field = keyof typeof FIELD_NAMES;
export const FIELDS = Object.keys(FIELD_NAMES) as Field[];

/** Shared by all keys that end as the same attribute, so that a duplicate is noticed. */
interface Slot {
  /** The record that had the attribute last, */
  lastRecord: number;
  /** where in its pairs it is, */
  at: number;
  /** and how many earlier values were renamed to `key~1`, `key~2`, ... */
  copies: number;
}

/** What a flattened key means; one object a key and field map, so that equal keys are the same object. */
export class Key implements KeyNode<Key> {
  readonly name: ByteString;
  /** Index in FIELDS, or NO_FIELD. */
  readonly field: number;
  /** 0 is the best name of its field. */
  readonly rank: number;
  /** The key as an attribute. */
  readonly attribute: ByteString;
  readonly inResource: boolean;
  readonly expected: { readonly written: ByteString; readonly node: Key }[] = [];
  readonly slot: Slot;
  readonly #map: FieldMap;

  constructor(map: FieldMap, name: ByteString, field: number, rank: number) {
    this.#map = map;
    this.name = name;
    this.field = field;
    this.rank = rank;
    this.inResource = name.startsWith("resource.");
    this.attribute = name.startsWith("attributes.")
      ? name.slice("attributes.".length)
      : this.inResource
        ? name.slice("resource.".length)
        : name;
    this.slot = map.slot(this.inResource, this.attribute);
  }

  child(name: ByteString): Key {
    return this.#map.key(this.name === "" ? name : `${this.name}.${name}`);
  }

  /** The slot of this attribute's name with a suffix. */
  renamed(suffix: string): Slot {
    return this.#map.slot(this.inResource, this.attribute + suffix);
  }
}

const NO_FIELD = -1;
/** Keys remembered by a field map; hostile producers make new ones without end. */
const KEYS_MAX = 5_000;
/** What `attributes.` and `resource.` add to a key on its way to be an attribute. */
const PREFIX_BYTES_MAX = "attributes.".length;

/** The meaning of every flattened key. */
export class FieldMap {
  readonly #named = new Map<ByteString, { field: number; rank: number }>();
  #keys = new Map<ByteString, Key>();
  #slots = new Map<string, Slot>();
  /** Longer flattened keys are refused before anything is kept for them: a long prefix must not be multiplied by its children. */
  keyBytesMax = Number.POSITIVE_INFINITY;
  /** The record itself. */
  root: Key;

  /** @param renamed names given by the request; each replaces the whole list of its field */
  constructor(renamed: Partial<Record<Field, readonly string[]>> = {}) {
    for (const [index, field] of FIELDS.entries()) {
      for (const [rank, name] of (renamed[field] ?? FIELD_NAMES[field]).entries()) {
        const key = toBytes(name);
        // A renamed field takes its name away from the lists of the others.
        if (!this.#named.has(key) || renamed[field]) this.#named.set(key, { field: index, rank });
      }
    }
    this.root = new Key(this, "", NO_FIELD, 0);
  }

  key(text: ByteString): Key {
    if (text.length > this.keyBytesMax + PREFIX_BYTES_MAX) {
      throw new JsonError("key", `a key has ${text.length} bytes; RELOG_RECORD_KEY_BYTES_MAX allows ${this.keyBytesMax}`);
    }
    const known = this.#keys.get(text);
    if (known !== undefined) return known;
    const name = owned(text);
    const target = this.#named.get(name);
    const key = new Key(this, name, target?.field ?? NO_FIELD, target?.rank ?? 0);
    this.#keys.set(name, key);
    return key;
  }

  slot(inResource: boolean, attribute: ByteString): Slot {
    const id = (inResource ? "r" : "a") + attribute;
    let slot = this.#slots.get(id);
    if (slot === undefined) {
      slot = { lastRecord: -1, at: 0, copies: 0 };
      this.#slots.set(id, slot);
    }
    return slot;
  }

  /** Forgets keys beyond the bound; between records only, since a running one holds on to its keys. */
  trim(): void {
    if (this.#keys.size <= KEYS_MAX && this.#slots.size <= KEYS_MAX * 2) return;
    this.#keys = new Map();
    this.#slots = new Map();
    this.root = new Key(this, "", NO_FIELD, 0);
  }
}

const TRACE_ID = /^[0-9a-fA-F]{32}$/;
const SPAN_ID = /^[0-9a-fA-F]{16}$/;
let records = 0;

/** Sorts the leaves of one record into a draft. One mapper serves a whole request. */
export class FieldMapper {
  readonly #draft: RecordDraft;
  /** Of each field: the key, value and type that hold it now. */
  readonly #heldKeys: (Key | undefined)[] = FIELDS.map(() => undefined);
  readonly #heldValues: ByteString[] = FIELDS.map(() => "");
  readonly #heldTypes: AttributeType[] = FIELDS.map(() => ATTRIBUTE_TYPES.string);
  #record = 0;
  #explicitSeverity = 0;
  /** Why the record cannot be stored, found while mapping. */
  timeFault: string | undefined;

  constructor(draft: RecordDraft) {
    this.#draft = draft;
  }

  begin(): void {
    this.#draft.clear();
    this.#heldKeys.fill(undefined);
    this.#record = ++records;
    this.#explicitSeverity = 0;
    this.timeFault = undefined;
  }

  readonly leaf = (key: Key, value: ByteString, type: AttributeType): void => {
    if (key.field === NO_FIELD) this.#attribute(key, value, type);
    else this.#field(key, value, type);
  };

  #attribute(key: Key, value: ByteString, type: AttributeType): void {
    const pairs = key.inResource ? this.#draft.resource : this.#draft.attributes;
    const { slot } = key;
    if (slot.lastRecord === this.#record) this.#displace(key, pairs);
    else slot.copies = 0;
    slot.lastRecord = this.#record;
    slot.at = pairs.count;
    pairs.add(key.attribute, value, type);
  }

  /** Renames the value that a key has so far to the next free `key~n`, so that the last one keeps the name. */
  #displace(key: Key, pairs: Pairs): void {
    const { slot } = key;
    let free: Slot;
    do free = key.renamed(`~${++slot.copies}`);
    while (free.lastRecord === this.#record);
    free.lastRecord = this.#record;
    free.at = slot.at;
    free.copies = 0;
    pairs.keys[slot.at] = `${key.attribute}~${slot.copies}`;
  }

  #field(key: Key, value: ByteString, type: AttributeType): void {
    const held = this.#heldKeys[key.field];
    if (held !== undefined && held.rank < key.rank) {
      this.#attribute(key, value, type);
      return;
    }
    if (!this.#assign(FIELDS[key.field]!, value, type)) {
      if (value !== "null" || type !== ATTRIBUTE_TYPES.json) this.#attribute(key, value, type);
      return;
    }
    if (held !== undefined) this.#attribute(held, this.#heldValues[key.field]!, this.#heldTypes[key.field]!);
    this.#heldKeys[key.field] = key;
    this.#heldValues[key.field] = value;
    this.#heldTypes[key.field] = type;
  }

  /** Sets the field; false when the value cannot be that field, so that it belongs to the attributes. */
  #assign(field: Field, value: ByteString, type: AttributeType): boolean {
    const draft = this.#draft;
    if (type === ATTRIBUTE_TYPES.json && field !== "message") return false;
    switch (field) {
      case "time":
        this.timeFault = parseTime(value, draft);
        return true;
      case "message":
        if (type === ATTRIBUTE_TYPES.json && value === "null") return false;
        draft.body = value;
        return true;
      case "level":
        draft.severityText = value;
        draft.severityNumber = severityNumberOf(fromBytes(value));
        return true;
      case "severity_number": {
        const number = Number(value);
        if (type !== ATTRIBUTE_TYPES.number || !Number.isInteger(number) || number < 1 || number > 24) return false;
        this.#explicitSeverity = number;
        return true;
      }
      case "service":
        draft.service = value;
        return true;
      case "host":
        draft.host = value;
        return true;
      case "event":
        draft.eventName = value;
        return true;
      case "trace":
        if (!TRACE_ID.test(value)) return false;
        draft.traceId = value.toLowerCase();
        return true;
      case "span":
        if (!SPAN_ID.test(value)) return false;
        draft.spanId = value.toLowerCase();
        return true;
      default:
        throw field satisfies never;
    }
  }

  /** Call behind the last leaf of a record. */
  end(): void {
    if (this.#explicitSeverity !== 0) this.#draft.severityNumber = this.#explicitSeverity;
  }
}

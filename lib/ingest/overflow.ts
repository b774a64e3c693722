// Too many attributes: what is beyond a limit goes into one attribute, where it can still be found.
//
// Promises: nothing that was sent is lost: names and values that overflow are the members of one JSON object in the attribute
// `overflow`, resource attributes among them as `resource.<name>`; a record that has an attribute of that name keeps it there
// too. Resource attributes are the last to overflow, then attributes in the order they came.

import type { AttributeType, Pairs, RecordDraft } from "../event/record.ts";
import { ATTRIBUTE_TYPES } from "../event/record.ts";
import type { ByteString } from "../event/text.ts";

export const OVERFLOW = "overflow";

/** What a tenant may have of attributes, as of now. */
export interface TenantAttributes {
  /** Attributes and resource attributes of one record. */
  readonly perRecordMax: number;
  /** Whether a name may be an attribute's today. One that is new takes a place among the day's names. */
  admits(name: ByteString): boolean;
}

/** A promise only when this process does not know the tenant's names of the day yet. */
export type AttributesPort = (tenant: string) => TenantAttributes | Promise<TenantAttributes>;

/** For processes and tests without accounts. */
export const ANY_ATTRIBUTES: TenantAttributes = { perRecordMax: Number.POSITIVE_INFINITY, admits: () => true };

export type OverflowLimit = "attributes_per_record" | "attribute_names_per_day";

/** Names whose verdict one call remembers; hostile calls have more. */
const REMEMBERED_MAX = 10_000;

/** Moves what is beyond the limits, record after record of one call. */
export class Overflow {
  readonly moved = new Map<OverflowLimit, number>();
  readonly #perRecordMax: number;
  readonly #attributes: TenantAttributes;
  readonly #verdicts = new Map<ByteString, boolean>();
  #members: ByteString[] = [];

  constructor(perRecordMax: number, attributes: TenantAttributes) {
    this.#perRecordMax = perRecordMax;
    this.#attributes = attributes;
  }

  apply({ attributes, resource }: RecordDraft): void {
    const ofResource = Math.min(resource.count, this.#perRecordMax);
    const ofAttributes = this.#perRecordMax - ofResource;
    if (!this.#isBeyond(resource, ofResource) && !this.#isBeyond(attributes, ofAttributes)) return;
    this.#members = [];
    this.#move(resource, ofResource, "resource.");
    this.#move(attributes, ofAttributes, "");
    attributes.add(OVERFLOW, `{${this.#members.join(",")}}`, ATTRIBUTE_TYPES.json);
  }

  #isBeyond(pairs: Pairs, max: number): boolean {
    if (pairs.count > max) return true;
    for (let i = 0; i < pairs.count; i++) if (!this.#admits(pairs.keys[i]!)) return true;
    return false;
  }

  #move(pairs: Pairs, max: number, prefix: string): void {
    const { count, types } = pairs;
    pairs.clear();
    for (let i = 0; i < count; i++) {
      const [key, value, type] = [pairs.keys[i]!, pairs.values[i]!, types[i] as AttributeType];
      // Kept ones only move forward, so nothing is overwritten that was not read.
      const limit = i >= max ? "attributes_per_record" : this.#admits(key) ? undefined : "attribute_names_per_day";
      if (limit === undefined && (prefix !== "" || key !== OVERFLOW)) {
        pairs.add(key, value, type);
        continue;
      }
      if (limit !== undefined) this.moved.set(limit, (this.moved.get(limit) ?? 0) + 1);
      // Values that are not texts are JSON as they are. Byte strings are escaped like any: the bytes of UTF-8 stay.
      const json = type === ATTRIBUTE_TYPES.string ? JSON.stringify(value) : value;
      this.#members.push(`${JSON.stringify(prefix + key)}:${json}`);
    }
  }

  #admits(name: ByteString): boolean {
    const known = this.#verdicts.get(name);
    if (known !== undefined) return known;
    const verdict = this.#attributes.admits(name);
    if (this.#verdicts.size < REMEMBERED_MAX) this.#verdicts.set(name, verdict);
    return verdict;
  }
}

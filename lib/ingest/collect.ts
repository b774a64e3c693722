// A call's records, sorted into the blocks of its messages.
//
// Promises: where messages are cut depends on the records as they were sent and on nothing else, so that a repeated call is cut
// in the same places whatever its tenant's limits are by then. Names of attributes are looked at once a block, not once a record;
// only a call that holds too many is decoded a second time, and what is beyond goes into one attribute (overflow.ts).

import type { Values } from "../base/config.ts";
import { BatchBuilder } from "../event/batch.ts";
import type { RecordDraft, Rejection } from "../event/record.ts";
import type { Decoded, RecordLimits, recordSettings } from "./decoded.ts";
import { recordLimits } from "./decoded.ts";
import type { OverflowLimit, TenantAttributes } from "./overflow.ts";
import { Overflow } from "./overflow.ts";

/** How much larger than a message's bound its records' texts may be: what a dictionary would save, an overflow repeats. */
const TEXTS_FACTOR = 4;

interface CollectBounds {
  readonly messageBytesMax: number;
  readonly errorsReportedMax: number;
}

/** Where a call was cut: the index of each block's first record. */
type Cuts = readonly number[];

export class Collector implements Decoded {
  readonly blocks: { builder: BatchBuilder; firstLine: number; rawBytes: number }[] = [];
  readonly errors: Rejection[] = [];
  accepted = 0;
  rejected = 0;
  readonly rejectedByCode = new Map<string, number>();
  /** Most attributes that a record had. */
  attributesSeen = 0;
  readonly #bounds: CollectBounds;
  readonly #overflow: Overflow | undefined;
  readonly #cuts: Cuts | undefined;

  /** @param overflow together with the cuts of the same call without it */
  constructor(bounds: CollectBounds, overflow?: Overflow, cuts?: Cuts) {
    this.#bounds = bounds;
    this.#overflow = overflow;
    this.#cuts = cuts;
  }

  /** See BatchBuilder.size. */
  get size(): number {
    return this.blocks.reduce((sum, block) => sum + block.builder.size, 0);
  }

  get rawBytes(): number {
    return this.blocks.reduce((sum, block) => sum + block.rawBytes, 0);
  }

  /** Attributes that went into the overflow, by the limit that they were beyond. */
  get overflowed(): ReadonlyMap<OverflowLimit, number> {
    return this.#overflow?.moved ?? NOTHING;
  }

  accept(draft: RecordDraft, rawBytes: number): void {
    let block = this.blocks.at(-1);
    if (block === undefined || this.#isFull(block.builder)) {
      block = { builder: new BatchBuilder(), firstLine: this.accepted, rawBytes: 0 };
      this.blocks.push(block);
    }
    const attributes = draft.attributes.count + draft.resource.count;
    if (attributes > this.attributesSeen) this.attributesSeen = attributes;
    this.#overflow?.apply(draft);
    block.builder.add(draft);
    block.rawBytes += rawBytes;
    this.accepted++;
  }

  reject(rejection: Rejection): void {
    this.rejected++;
    this.rejectedByCode.set(rejection.code, (this.rejectedByCode.get(rejection.code) ?? 0) + 1);
    if (this.errors.length < this.#bounds.errorsReportedMax) this.errors.push(rejection);
  }

  discard(): void {
    for (const { builder } of this.blocks) builder.discard();
  }

  #isFull(builder: BatchBuilder): boolean {
    if (this.#cuts !== undefined) return this.#cuts[this.blocks.length] === this.accepted;
    const { messageBytesMax } = this.#bounds;
    return builder.bytes >= messageBytesMax || builder.size >= messageBytesMax * TEXTS_FACTOR;
  }
}

const NOTHING: ReadonlyMap<OverflowLimit, number> = new Map();

/** @param decode hands the call's records out, the same ones each time */
export function collect(
  settings: CollectBounds & Values<typeof recordSettings>,
  decode: (limits: RecordLimits, out: Decoded) => void,
  nowMs: number,
  attributes: TenantAttributes,
): Collector {
  const limits = recordLimits(settings, nowMs);
  const collected = new Collector(settings);
  decode(limits, collected);
  const perRecordMax = Math.min(settings.attributesMax, attributes.perRecordMax);
  const isWithin = collected.attributesSeen <= perRecordMax && collected.blocks.every(({ builder }) => hasAdmitted(builder, attributes));
  if (isWithin) return collected;
  const cuts = collected.blocks.map(({ firstLine }) => firstLine);
  collected.discard();
  const again = new Collector(settings, new Overflow(perRecordMax, attributes), cuts);
  decode(limits, again);
  return again;
}

function hasAdmitted(builder: BatchBuilder, attributes: TenantAttributes): boolean {
  return builder.names.every((names) => names.every((name) => attributes.admits(name)));
}

// What every protocol's decoder speaks: where good and bad records go, and the bounds of one record.

import type { Values } from "../base/config.ts";
import { bytes, duration, integer } from "../base/config.ts";
import type { Pairs, RecordDraft, Rejection, RejectionCode } from "../event/record.ts";

export const recordSettings = {
  recordBytesMax: bytes("RELOG_RECORD_BYTES_MAX", "256KiB", "one record as sent; a larger line is a file, not a log line"),
  attributesMax: integer(
    "RELOG_RECORD_ATTRIBUTES_MAX",
    "256",
    [1, 10_000],
    "attributes",
    "attributes and resource attributes of one record; what is beyond goes into the attribute `overflow`, ten times as many are refused",
  ),
  depthMax: integer("RELOG_RECORD_DEPTH_MAX", "32", [1, 512], "levels", "nesting of objects and arrays in one record"),
  keyBytesMax: bytes("RELOG_RECORD_KEY_BYTES_MAX", "512B", "one flattened attribute key"),
  futureMaxMs: duration("RELOG_RECORD_FUTURE_MAX", "1d", "how far ahead of the gateway's clock a record's time may be"),
};

/** A record with so many times the attributes that it may have is no log record. */
const ATTRIBUTES_HARD_FACTOR = 10;

/** The two-method interface between decoders and the rest. */
export interface Decoded {
  /** Takes a good record; the draft is overwritten afterwards. @param rawBytes bytes of the record as sent */
  accept(draft: RecordDraft, rawBytes: number): void;
  reject(rejection: Rejection): void;
}

export interface Fault {
  readonly code: RejectionCode;
  readonly message: string;
}

export interface RecordLimits {
  readonly bytesMax: number;
  readonly depthMax: number;
  readonly keyBytesMax: number;
  tooLarge(bytes: number): Fault;
  /** Checks a finished draft and gives it the time of arrival when it names none. */
  check(draft: RecordDraft, rawBytes: number): Fault | undefined;
}

/** Bounds of one request's records; `nowMs` is when the gateway saw it. */
export function recordLimits(settings: Values<typeof recordSettings>, nowMs: number): RecordLimits {
  const latestSeconds = Math.floor((nowMs + settings.futureMaxMs) / 1000);
  const nowSeconds = Math.floor(nowMs / 1000);
  const nowNanoseconds = (nowMs % 1000) * 1_000_000;

  function checkPairs(pairs: Pairs): Fault | undefined {
    for (let i = 0; i < pairs.count; i++) {
      const key = pairs.keys[i]!;
      if (key.length > settings.keyBytesMax) {
        return {
          code: "key_too_long",
          message: `a key has ${key.length} bytes; RELOG_RECORD_KEY_BYTES_MAX allows ${settings.keyBytesMax}`,
        };
      }
    }
    return undefined;
  }

  return {
    bytesMax: settings.recordBytesMax,
    depthMax: settings.depthMax,
    keyBytesMax: settings.keyBytesMax,
    tooLarge: (size) => ({
      code: "record_too_large",
      message: `the record has ${size} bytes; RELOG_RECORD_BYTES_MAX allows ${settings.recordBytesMax}`,
    }),
    check(draft) {
      if (draft.seconds < 0) {
        draft.seconds = nowSeconds;
        draft.nanoseconds = nowNanoseconds;
      } else if (draft.seconds > latestSeconds) {
        const time = new Date(draft.seconds * 1000).toISOString();
        return {
          code: "timestamp_in_future",
          message: `the time ${time} is more than ${settings.futureMaxMs} ms ahead; RELOG_RECORD_FUTURE_MAX sets that`,
        };
      }
      const count = draft.attributes.count + draft.resource.count;
      if (count > settings.attributesMax * ATTRIBUTES_HARD_FACTOR) {
        const allowed = `${settings.attributesMax}, and ${ATTRIBUTES_HARD_FACTOR} times as many that overflow`;
        return {
          code: "too_many_attributes",
          message: `the record has ${count} attributes; RELOG_RECORD_ATTRIBUTES_MAX allows ${allowed}`,
        };
      }
      return checkPairs(draft.attributes) ?? checkPairs(draft.resource);
    },
  };
}

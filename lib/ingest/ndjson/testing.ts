// Decoding a body at once, for the tests of this folder.

import type { RecordDraft, Rejection } from "../../event/record.ts";
import { fromBytes } from "../../event/text.ts";
import type { RecordLimits } from "../decoded.ts";
import { recordLimits } from "../decoded.ts";
import { decodeNdjson } from "./decode.ts";
import { FieldMap } from "./fields.ts";

export const NOW_MS = 1_735_689_600_123;
export const SETTINGS = { recordBytesMax: 10_000, attributesMax: 20, depthMax: 8, keyBytesMax: 64, futureMaxMs: 86_400_000 };
export const LIMITS = recordLimits(SETTINGS, NOW_MS);

export interface DecodedBody {
  readonly bodies: string[];
  /** Attributes of each record with their types: `n:42`. */
  readonly attributes: Record<string, string>[];
  readonly resources: Record<string, string>[];
  readonly fields: Record<string, unknown>[];
  readonly rejections: Rejection[];
}

export function decodeAll(body: Buffer, limits: RecordLimits = LIMITS, map = new FieldMap()): DecodedBody {
  const all: DecodedBody = { bodies: [], attributes: [], resources: [], fields: [], rejections: [] };
  decodeNdjson(body, map, limits, {
    accept(draft) {
      all.bodies.push(fromBytes(draft.body));
      all.attributes.push(pairsOf(draft.attributes));
      all.resources.push(pairsOf(draft.resource));
      all.fields.push(fieldsOf(draft));
    },
    reject: (rejection) => all.rejections.push(rejection),
  });
  return all;
}

function pairsOf(pairs: RecordDraft["attributes"]): Record<string, string> {
  const { values, types } = pairs;
  const keys = pairs.keys.slice(0, pairs.count);
  if (new Set(keys).size !== keys.length) throw new Error(`a key is there twice: ${keys.join(", ")}`);
  return Object.fromEntries(keys.map((key, i) => [fromBytes(key), `${types[i]}:${fromBytes(values[i]!)}`]));
}

function fieldsOf(draft: RecordDraft): Record<string, unknown> {
  const { severityNumber, severityText, service, host, eventName, traceId, spanId, seconds, nanoseconds } = draft;
  const all = { severityNumber, severityText, service, host, eventName, traceId, spanId, time: `${seconds}.${nanoseconds}` };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== "" && value !== 0));
}

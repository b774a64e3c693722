// What a tail is asked for, from its query parameters.
//
// Promises: every parameter is known or refused with the list of those that are; all must hold; `contains` is a plain part of
// the message in any letter case, never a pattern.

import { duration } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import type { AttributeValue, CanonicalRecord } from "../event/record.ts";
import { LEVELS, severityNumberOf } from "../event/severity.ts";
import { parseTime } from "../event/time.ts";

export interface TailRequest {
  /** Whether a record is wanted. */
  readonly wants: (record: CanonicalRecord) => boolean;
  /** Records stored from then on, milliseconds since the epoch; undefined: from now on. */
  readonly sinceMs: number | undefined;
  readonly limitPerSecond: number | undefined;
}

const PARAMETERS = ["service", "level", "host", "contains", "attribute.<name>", "since", "limit_per_second"] as const;
const ATTRIBUTE = "attribute.";
const ATTRIBUTES_MAX = 16;
const VALUE_CHARS_MAX = 1_024;

type Test = (record: CanonicalRecord) => boolean;

/** @param parameters name and value, in order @throws RelogError bad_request */
export function readTailRequest(parameters: Iterable<readonly [string, string]>, nowMs: number): TailRequest {
  const tests: Test[] = [];
  const seen = new Set<string>();
  let [sinceMs, limitPerSecond] = [undefined as number | undefined, undefined as number | undefined];
  for (const [name, value] of parameters) {
    if (seen.has(name)) throw bad(`${shown(name)}: it may be given once`);
    seen.add(name);
    if (value === "") throw bad(`${shown(name)}: it needs a value`);
    if (value.length > VALUE_CHARS_MAX) throw bad(`${shown(name)}: at most ${VALUE_CHARS_MAX} characters`);
    if (name === "since") sinceMs = sinceOf(value, nowMs);
    else if (name === "limit_per_second") limitPerSecond = limitOf(value);
    else tests.push(testOf(name, value));
  }
  if (tests.length > ATTRIBUTES_MAX) throw bad(`at most ${ATTRIBUTES_MAX} filters`);
  return { wants: (record) => tests.every((test) => test(record)), sinceMs, limitPerSecond };
}

function testOf(name: string, value: string): Test {
  if (name.startsWith(ATTRIBUTE) && name.length > ATTRIBUTE.length) {
    const key = name.slice(ATTRIBUTE.length);
    return ({ attributes }) => Object.hasOwn(attributes, key) && isValue(attributes[key]!, value);
  }
  switch (name) {
    case "service":
      return (record) => record.service === value;
    case "host":
      return (record) => record.host === value;
    case "level":
      return atLeast(value);
    case "contains": {
      const part = value.toLowerCase();
      return (record) => record.body.toLowerCase().includes(part);
    }
    default:
      throw bad(`there is no parameter ${shown(name)}; there are ${PARAMETERS.join(", ")}`);
  }
}

/** That level and worse; a record of unknown level is below all of them. */
function atLeast(word: string): Test {
  const number = severityNumberOf(word);
  if (number === 0) throw bad(`level: expected ${LEVELS.slice(1).join(", ")}, got ${shown(word)}`);
  const first = number - ((number - 1) % 4);
  return (record) => record.severity_number >= first;
}

/** A number is compared as a number, anything else by its text. */
function isValue(value: AttributeValue, wanted: string): boolean {
  if (typeof value === "string") return value === wanted;
  if (typeof value === "boolean") return String(value) === wanted;
  if ("json" in value) return value.json === wanted;
  return value.number === wanted || (wanted.trim() === wanted && Number(value.number) === Number(wanted));
}

function sinceOf(text: string, nowMs: number): number {
  const length = duration("", "", "").type.safeParse(text);
  // A bare number would be milliseconds here and a time elsewhere.
  if (length.success && /[a-z]$/i.test(text)) return Math.max(0, nowMs - length.data);
  const target = { seconds: 0, nanoseconds: 0 };
  if (!/^\d{4}-/.test(text) || parseTime(text, target) !== undefined)
    throw bad(`since: expected an RFC 3339 time or a duration such as 5m, got ${shown(text)}`);
  return target.seconds * 1_000 + Math.floor(target.nanoseconds / 1e6);
}

function limitOf(text: string): number {
  const value = Number(text);
  if (!/^\d{1,9}$/.test(text) || value < 1) throw bad(`limit_per_second: expected a whole number of at least 1, got ${shown(text)}`);
  return value;
}

const shown = (text: string): string => JSON.stringify(text.slice(0, 64));
const bad = (message: string): RelogError => new RelogError("bad_request", message);

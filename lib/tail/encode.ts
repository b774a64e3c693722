// A record as one line of JSON.
//
// Promises: one line, whatever the record holds; values keep their types, and numbers every digit that the producer sent.

import type { AttributeValue, CanonicalRecord } from "../event/record.ts";
import { levelOf } from "../event/severity.ts";

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;

/** The members in the order of the table `logs`; `attributes` and `resource` with typed values. */
export function recordLine(record: CanonicalRecord): string {
  const head = {
    time: timeText(record.timestamp),
    level: levelOf(record.severity_number),
    service: record.service,
    host: record.host,
    message: record.body,
  };
  const tail = {
    trace_id: record.trace_id,
    span_id: record.span_id,
    event_name: record.event_name,
    batch: record.batch,
    line: record.line,
  };
  const values = `"attributes":${valuesText(record.attributes)},"resource":${valuesText(record.resource)}`;
  return `${JSON.stringify(head).slice(0, -1)},${values},${JSON.stringify(tail).slice(1)}`;
}

/** RFC 3339 with nanoseconds. @param nanoseconds since the epoch, as decimal text */
export function timeText(nanoseconds: string): string {
  const digits = nanoseconds.padStart(10, "0");
  const seconds = new Date(Number(digits.slice(0, -9)) * 1_000).toISOString();
  return `${seconds.slice(0, -"000Z".length)}${digits.slice(-9)}Z`;
}

function valuesText(values: Readonly<Record<string, AttributeValue>>): string {
  return `{${Object.entries(values)
    .map(([key, value]) => `${JSON.stringify(key)}:${valueText(value)}`)
    .join(",")}}`;
}

function valueText(value: AttributeValue): string {
  if (typeof value !== "object") return JSON.stringify(value);
  if ("number" in value) return NUMBER.test(value.number) ? value.number : JSON.stringify(value.number);
  return isJson(value.json) ? value.json.replace(/[\r\n]/g, " ") : JSON.stringify(value.json);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

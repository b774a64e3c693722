// NDJSON, a JSON array or one JSON object -> drafts. Pure.
//
// Promises: a bad record rejects that record with its number and reason, its neighbours are untouched; every bound of a
// record is checked here; bytes are scanned once.

import { isUtf8 } from "node:buffer";
import { RecordDraft } from "../../event/record.ts";
import type { Rejection, RejectionCode } from "../../event/record.ts";
import type { Decoded, RecordLimits } from "../decoded.ts";
import { FieldMapper } from "./fields.ts";
import type { FieldMap, Key } from "./fields.ts";
import { JsonError, JsonScanner } from "./scan.ts";

const OPEN_BRACE = 0x7b;
const OPEN_BRACKET = 0x5b;

/**
 * Hands every good record of the body to `accept` and every bad one to `reject`.
 * `accept` gets a draft that it must not keep; the next record overwrites it.
 */
export function decodeNdjson(body: Buffer, fields: FieldMap, limits: RecordLimits, out: Decoded): void {
  const text = body.toString("latin1");
  const validUtf8 = isUtf8(body);
  const draft = new RecordDraft();
  const mapper = new FieldMapper(draft);
  fields.trim();
  const scanner = new JsonScanner(text, limits.depthMax, mapper.leaf);

  function record(line: number, from: number, to: number, scan: () => void): void {
    const reject = (code: RejectionCode, message: string): void => out.reject({ line, code, message } satisfies Rejection);
    mapper.begin();
    try {
      scan();
    } catch (error) {
      if (!(error instanceof JsonError)) throw error;
      if (error.kind === "depth") return reject("too_deep", `${error.message} (RELOG_RECORD_DEPTH_MAX)`);
      throw new LineError(error.message);
    }
    mapper.end();
    if (!validUtf8 && !isUtf8(body.subarray(from, to))) return reject("invalid_utf8", "the record is not valid UTF-8");
    if (mapper.timeFault !== undefined) return reject("timestamp_invalid", mapper.timeFault);
    const fault = limits.check(draft, to - from);
    if (fault !== undefined) return reject(fault.code, fault.message);
    out.accept(draft, to - from);
  }

  if (scanner.begin(0, text.length) === OPEN_BRACKET) decodeArray(text, scanner, fields, limits, record, out);
  else decodeLines(text, scanner, fields, limits, record, out);
}

type RecordSink = (line: number, from: number, to: number, scan: () => void) => void;

/** A syntax error inside one record. */
class LineError extends Error {
  override readonly name = "LineError";
}

function decodeLines(text: string, scanner: JsonScanner<Key>, fields: FieldMap, limits: RecordLimits, record: RecordSink, out: Decoded): void {
  let line = 0;
  const first = text.search(/\S/);
  for (let from = 0; from < text.length; ) {
    let to = text.indexOf("\n", from);
    if (to < 0) to = text.length;
    line++;
    const code = scanner.begin(from, to);
    if (code !== -1) {
      try {
        if (to - from > limits.bytesMax) out.reject({ line, ...limits.tooLarge(to - from) });
        else if (code !== OPEN_BRACE) out.reject({ line, ...notAnObject(text, scanner.position) });
        else record(line, from, to, () => scanner.wholeObject(fields.root));
      } catch (error) {
        if (!(error instanceof LineError)) throw error;
        // One object over several lines, as people write by hand, is taken whole when it is all there is.
        if (from <= first && wholeBodyIsOneObject(text, scanner, first)) {
          if (text.length - first > limits.bytesMax) out.reject({ line, ...limits.tooLarge(text.length - first) });
          else {
            scanner.begin(first, text.length);
            record(line, first, text.length, () => scanner.wholeObject(fields.root));
          }
          return;
        }
        out.reject({ line, code: "invalid_json", message: error.message });
      }
    }
    from = to + 1;
  }
}

function wholeBodyIsOneObject(text: string, scanner: JsonScanner<Key>, first: number): boolean {
  scanner.begin(first, text.length);
  try {
    scanner.skip(1);
    return text.slice(scanner.position).trim() === "";
  } catch (error) {
    if (error instanceof JsonError) return error.kind === "depth";
    throw error;
  }
}

/** Elements of an array count as lines. A syntax error ends the array: what follows it cannot be told apart. */
function decodeArray(text: string, scanner: JsonScanner<Key>, fields: FieldMap, limits: RecordLimits, record: RecordSink, out: Decoded): void {
  let line = 0;
  let at = scanner.position + 1;
  const end = text.length;
  if (scanner.begin(at, end) === 0x5d) return;
  for (;;) {
    line++;
    const code = scanner.begin(at, end);
    const from = scanner.position;
    try {
      const value = scanner.skip(1);
      const to = from + value.length;
      if (value.length > limits.bytesMax) out.reject({ line, ...limits.tooLarge(value.length) });
      else if (code !== OPEN_BRACE) out.reject({ line, ...notAnObject(text, from) });
      else {
        scanner.begin(from, to);
        record(line, from, to, () => scanner.wholeObject(fields.root));
      }
      at = to;
    } catch (error) {
      if (!(error instanceof JsonError) && !(error instanceof LineError)) throw error;
      out.reject({ line, code: error instanceof JsonError && error.kind === "depth" ? "too_deep" : "invalid_json", message: `${error.message}; the rest of the array was not read` });
      return;
    }
    const next = scanner.begin(at, end);
    at = scanner.position + 1;
    if (next === 0x2c) continue;
    if (next !== 0x5d) out.reject({ line: line + 1, code: "invalid_json", message: 'expected "," or "]"; the rest of the array was not read' });
    return;
  }
}

function notAnObject(text: string, at: number): { code: RejectionCode; message: string } {
  const start = text.charAt(at);
  return /["0-9tfn[-]/.test(start)
    ? { code: "not_an_object", message: "a record is a JSON object" }
    : { code: "invalid_json", message: `expected "{", found "${start.replace(/[^ -~]/g, "?")}"` };
}

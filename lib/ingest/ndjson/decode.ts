// NDJSON, a JSON array or one JSON object -> drafts. Pure.
//
// Promises: a bad record rejects that record with its number and reason, its neighbours are untouched; every bound of a
// record is checked here; bytes are scanned once (twice in an array, whose elements must be found first).

import { isUtf8 } from "node:buffer";
import type { RejectionCode } from "../../event/record.ts";
import { RecordDraft } from "../../event/record.ts";
import type { ByteString } from "../../event/text.ts";
import type { Decoded, Fault, RecordLimits } from "../decoded.ts";
import type { FieldMap, Key } from "./fields.ts";
import { FieldMapper } from "./fields.ts";
import { DEPTH_HARD_MAX, JsonError, JsonScanner } from "./scan.ts";

const OPEN_BRACE = 0x7b;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const REST_UNREAD = "; the rest of the array was not read";

/**
 * Lines are decoded in pieces of about this many bytes: a text of a whole body would be a large object of V8's heap, which
 * costs a mapping and its page faults each time. Measured; docs/adr/0003.
 */
const PIECE_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

/**
 * Hands every good record of the body to `out.accept` and every bad one to `out.reject`.
 * `accept` gets a draft that it must not keep; the next record overwrites it.
 */
export function decodeNdjson(body: Buffer, fields: FieldMap, limits: RecordLimits, out: Decoded): void {
  fields.keyBytesMax = limits.keyBytesMax;
  const decodingOf = (bytes: Buffer): Decoding => new Decoding(bytes, fields, limits, out);
  if (body.length <= PIECE_BYTES || firstByte(body) === OPEN_BRACKET) {
    decodingOf(body).run();
    return;
  }
  let lines: number | undefined = 0;
  for (let from = 0; from < body.length; ) {
    const newline = body.indexOf(NEWLINE, from + PIECE_BYTES);
    const to = newline < 0 ? body.length : newline + 1;
    lines = decodingOf(body.subarray(from, to)).lines(lines, from === 0 ? "first" : "later");
    if (lines === undefined) {
      // The first record does not end with its line: it is one object over many lines, or nothing that can be read.
      decodingOf(body).run();
      return;
    }
    from = to;
  }
}

/** The first byte that is no white space. */
function firstByte(body: Buffer): number | undefined {
  return body.find((byte) => byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09);
}

/** A syntax error inside one record. */
class LineError extends Error {
  override readonly name = "LineError";
}

class Decoding {
  readonly #body: Buffer;
  readonly #text: ByteString;
  readonly #validUtf8: boolean;
  readonly #fields: FieldMap;
  readonly #limits: RecordLimits;
  readonly #out: Decoded;
  readonly #draft = new RecordDraft();
  readonly #mapper = new FieldMapper(this.#draft);
  readonly #scanner: JsonScanner<Key>;
  /** Finds where a value ends, however deep it is, so that a record nested too deep does not hide its neighbours. */
  readonly #outline: JsonScanner<Key>;

  constructor(body: Buffer, fields: FieldMap, limits: RecordLimits, out: Decoded) {
    this.#body = body;
    this.#text = body.toString("latin1");
    this.#validUtf8 = isUtf8(body);
    this.#fields = fields;
    this.#limits = limits;
    this.#out = out;
    this.#scanner = new JsonScanner(this.#text, limits.depthMax, this.#mapper.leaf);
    this.#outline = new JsonScanner(this.#text, DEPTH_HARD_MAX, this.#mapper.leaf);
  }

  /** Decodes the whole body. */
  run(): void {
    if (this.#scanner.begin(0, this.#text.length) === OPEN_BRACKET) this.#array();
    else this.lines(0, "whole");
  }

  /**
   * Decodes lines.
   * @param before lines of the body before these
   * @returns lines of the body so far; undefined, with nothing handed out, when the first record of the first piece is broken
   */
  lines(before: number, piece: "whole" | "first" | "later"): number | undefined {
    const text = this.#text;
    let line = before;
    for (let from = 0; from < text.length; ) {
      let to = text.indexOf("\n", from);
      if (to < 0) to = text.length;
      line++;
      const code = this.#scanner.begin(from, to);
      if (code !== -1) {
        try {
          this.#element(line, code, from, to);
        } catch (error) {
          if (!(error instanceof LineError)) throw error;
          const isFirst = piece !== "later" && text.slice(0, from).trim() === "";
          if (isFirst && piece === "first") return undefined;
          if (isFirst && this.#isOneObject(from)) {
            this.#element(line, this.#scanner.begin(from, text.length), from, text.length);
            return line;
          }
          this.#reject(line, "invalid_json", error.message);
        }
      }
      from = to + 1;
    }
    return line;
  }

  /** One object over several lines, as people write by hand, is taken whole when it is all there is. */
  #isOneObject(from: number): boolean {
    const { length } = this.#text;
    if (this.#outline.begin(from, length) !== OPEN_BRACE) return false;
    try {
      this.#outline.skip(1);
    } catch (error) {
      if (error instanceof JsonError) return false;
      throw error;
    }
    return this.#outline.begin(this.#outline.position, length) === -1;
  }

  /** Elements of an array count as lines. A syntax error ends the array: what follows it cannot be told apart. */
  #array(): void {
    const end = this.#text.length;
    let line = 0;
    let at = this.#scanner.position + 1;
    let code = this.#outline.begin(at, end);
    for (;;) {
      if (line === 0 && code === CLOSE_BRACKET) break;
      line++;
      const from = this.#outline.position;
      try {
        at = from + this.#outline.skip(1).length;
        this.#scanner.begin(from, at);
        this.#element(line, code, from, at);
      } catch (error) {
        if (!(error instanceof JsonError) && !(error instanceof LineError)) throw error;
        this.#reject(line, error instanceof JsonError && error.kind === "depth" ? "too_deep" : "invalid_json", error.message + REST_UNREAD);
        return;
      }
      const next = this.#outline.begin(at, end);
      if (next === CLOSE_BRACKET) break;
      if (next !== COMMA) {
        this.#reject(line + 1, "invalid_json", `expected "," or "]"${REST_UNREAD}`);
        return;
      }
      code = this.#outline.begin(this.#outline.position + 1, end);
    }
    if (this.#outline.begin(this.#outline.position + 1, end) !== -1)
      this.#reject(line + 1, "invalid_json", "something follows the array; it was not read");
  }

  /** One record that starts with char `code` at the scanner's position and lies in [from, to). @throws LineError on bad syntax */
  #element(line: number, code: number, from: number, to: number): void {
    if (to - from > this.#limits.bytesMax) this.#refuse(line, this.#limits.tooLarge(to - from));
    else if (code !== OPEN_BRACE) this.#refuse(line, notAnObject(code));
    else this.#record(line, from, to);
  }

  #record(line: number, from: number, to: number): void {
    this.#fields.trim();
    this.#mapper.begin();
    try {
      this.#scanner.wholeObject(this.#fields.root);
    } catch (error) {
      if (!(error instanceof JsonError)) throw error;
      if (error.kind === "syntax") throw new LineError(error.message);
      if (error.kind === "key") this.#reject(line, "key_too_long", error.message);
      else this.#reject(line, "too_deep", `${error.message} (RELOG_RECORD_DEPTH_MAX)`);
      return;
    }
    this.#mapper.end();
    const fault = this.#fault(from, to);
    if (fault === undefined) this.#out.accept(this.#draft, to - from);
    else this.#refuse(line, fault);
  }

  #fault(from: number, to: number): Fault | undefined {
    if (!this.#validUtf8 && !isUtf8(this.#body.subarray(from, to)))
      return { code: "invalid_utf8", message: "the record is not valid UTF-8" };
    if (this.#mapper.timeFault !== undefined) return { code: "timestamp_invalid", message: this.#mapper.timeFault };
    return this.#limits.check(this.#draft, to - from);
  }

  #refuse(line: number, { code, message }: Fault): void {
    this.#out.reject({ line, code, message });
  }

  #reject(line: number, code: RejectionCode, message: string): void {
    this.#out.reject({ line, code, message });
  }
}

function notAnObject(code: number): Fault {
  const start = code > 0x20 && code < 0x7f ? String.fromCharCode(code) : "?";
  return /["0-9tfn[-]/.test(start)
    ? { code: "not_an_object", message: "a record is a JSON object" }
    : { code: "invalid_json", message: `expected "{", found "${start}"` };
}

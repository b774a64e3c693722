// A JSON scanner over byte strings that hands out flat pairs instead of building objects.
//
// Why not JSON.parse: it loses numbers above 2^53 and all but the last of duplicate keys, and its objects would only be
// walked and thrown away (docs/adr/0003-json-scanner.md has the figures). Grammar: RFC 8259; the one leniency is that raw
// control characters inside strings are taken as they are.
// Bounds: depth; everything else is bounded by the text itself. Errors are JsonError with a position.

import type { AttributeType } from "../../event/record.ts";
import { ATTRIBUTE_TYPES } from "../../event/record.ts";
import type { ByteString } from "../../event/text.ts";
import { owned, toBytes } from "../../event/text.ts";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;
const MINUS = 0x2d;

/** Depth at which skipping an array gives up whatever the caller's own bound is: the scanner recurses. */
export const DEPTH_HARD_MAX = 512;
/** Positions of an object whose keys are remembered. */
const EXPECTED_MAX = 256;

export class JsonError extends Error {
  override readonly name = "JsonError";
  readonly kind: "syntax" | "depth" | "key";
  constructor(kind: "syntax" | "depth" | "key", message: string) {
    super(message);
    this.kind = kind;
  }
}

/**
 * A key at its place in the objects seen so far. Records of one producer look alike, so an object's n-th key is most
 * likely the n-th key of the object before it: then it is recognised by comparing, not by cutting it out and looking it up.
 */
export interface KeyNode<N> {
  /** The node of a key inside this one's object. @throws JsonError of the kind "key" when it becomes too long */
  child(name: ByteString): N;
  /** The nodes met last at each position, with the text that a compact JSON encoder writes for them: `name":`. */
  readonly expected: { readonly written: ByteString; readonly node: N }[];
}

/** Gets each leaf of an object: its key's node, its text and its type. Arrays, null and empty objects come as JSON text. */
export type Leaf<N> = (key: N, value: ByteString, type: AttributeType) => void;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const ESCAPES: Record<string, string> = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

export class JsonScanner<N extends KeyNode<N>> {
  readonly #text: ByteString;
  readonly #depthMax: number;
  readonly #leaf: Leaf<N>;
  #at = 0;
  #end = 0;
  /** Where the next backslash is, at or behind the last string looked at. */
  #backslash = -1;
  /** No backslash is between here and `#backslash`. */
  #clear = 0;

  /** @param depthMax nesting of objects and arrays that is still taken */
  constructor(text: ByteString, depthMax: number, leaf: Leaf<N>) {
    this.#text = text;
    this.#depthMax = Math.min(depthMax, DEPTH_HARD_MAX);
    this.#leaf = leaf;
  }

  /** Position behind what was scanned last. */
  get position(): number {
    return this.#at;
  }

  /** Limits scanning to [from, to) of the text and skips leading white space. Returns the char code there, or -1 at the end. */
  begin(from: number, to: number): number {
    // Going back, backslashes that were passed count again.
    if (from < this.#clear || this.#backslash < from) this.#seekBackslash(from);
    this.#at = from;
    this.#end = to;
    return this.#skipSpace();
  }

  /** Scans one object at the current position and nothing but white space behind it. @throws JsonError */
  wholeObject(root: N): void {
    this.#object(root, 1);
    if (this.#skipSpace() !== -1) throw this.#unexpected("the end of the record");
  }

  /** Scans one object at the current position, handing its leaves out. */
  #object(parent: N, depth: number): void {
    const text = this.#text;
    if (depth > this.#depthMax) throw new JsonError("depth", `nested deeper than ${this.#depthMax}`);
    const start = this.#at++;
    if (this.#skipSpace() === CLOSE_BRACE) {
      this.#at++;
      if (depth > 1) this.#leaf(parent, text.slice(start, this.#at), ATTRIBUTE_TYPES.json);
      return;
    }
    for (let position = 0; ; position++) {
      if (this.#skipSpace() !== QUOTE) throw this.#unexpected("a key in double quotes");
      this.#value(this.#key(parent, position), depth);
      const next = this.#skipSpace();
      if (next !== COMMA && next !== CLOSE_BRACE) throw this.#unexpected('"," or "}"');
      this.#at++;
      if (next === CLOSE_BRACE) return;
    }
  }

  /** Scans a key and the colon behind it. */
  #key(parent: N, position: number): N {
    const expected = parent.expected[position];
    const start = this.#at + 1;
    if (expected !== undefined && this.#text.startsWith(expected.written, start)) {
      this.#at = start + expected.written.length;
      return expected.node;
    }
    const name = this.#string();
    const plain = this.#at === start + name.length + 1;
    if (this.#skipSpace() !== COLON) throw this.#unexpected('":" behind the key');
    this.#at++;
    const node = parent.child(name);
    if (plain && position <= parent.expected.length && position < EXPECTED_MAX)
      parent.expected[position] = { written: owned(`${name}":`), node };
    return node;
  }

  /** Skips one value of any kind at the current position. Returns its text. @throws JsonError */
  skip(depth: number): ByteString {
    const start = this.#at;
    this.#skipValue(depth);
    return this.#text.slice(start, this.#at);
  }

  #value(key: N, depth: number): void {
    const code = this.#skipSpace();
    if (code === QUOTE) this.#leaf(key, this.#string(), ATTRIBUTE_TYPES.string);
    else if (code === OPEN_BRACE) this.#object(key, depth + 1);
    else if (code === MINUS || (code >= 0x30 && code <= 0x39)) this.#leaf(key, this.#number(), ATTRIBUTE_TYPES.number);
    else if (code === OPEN_BRACKET) this.#leaf(key, this.skip(depth + 1), ATTRIBUTE_TYPES.json);
    else {
      const word = this.#word();
      this.#leaf(key, word, word === "null" ? ATTRIBUTE_TYPES.json : ATTRIBUTE_TYPES.boolean);
    }
  }

  #skipValue(depth: number): void {
    const code = this.#skipSpace();
    if (code === QUOTE) this.#string();
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) this.#skipNested(depth, code === OPEN_BRACE);
    else if (code === MINUS || (code >= 0x30 && code <= 0x39)) this.#number();
    else this.#word();
  }

  #skipNested(depth: number, isObject: boolean): void {
    if (depth > this.#depthMax) throw new JsonError("depth", `nested deeper than ${this.#depthMax}`);
    const close = isObject ? CLOSE_BRACE : CLOSE_BRACKET;
    this.#at++;
    if (this.#skipSpace() === close) {
      this.#at++;
      return;
    }
    for (;;) {
      if (isObject) {
        if (this.#skipSpace() !== QUOTE) throw this.#unexpected("a key in double quotes");
        this.#string();
        if (this.#skipSpace() !== COLON) throw this.#unexpected('":" behind the key');
        this.#at++;
      }
      this.#skipValue(depth + 1);
      const next = this.#skipSpace();
      if (next !== COMMA && next !== close) throw this.#unexpected(isObject ? '"," or "}"' : '"," or "]"');
      this.#at++;
      if (next === close) return;
    }
  }

  /** White space of RFC 8259. Returns the char code behind it, or -1 at the end. */
  #skipSpace(): number {
    while (this.#at < this.#end) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return code;
      this.#at++;
    }
    return -1;
  }

  #seekBackslash(from: number): void {
    const at = this.#text.indexOf("\\", from);
    this.#backslash = at < 0 ? this.#text.length : at;
    this.#clear = from;
  }

  #string(): ByteString {
    const text = this.#text;
    const start = this.#at + 1;
    let close = text.indexOf('"', start);
    if (this.#backslash < start) this.#seekBackslash(start);
    if (close >= 0 && close < this.#backslash && close < this.#end) {
      this.#at = close + 1;
      return text.slice(start, close);
    }
    // Escapes: the string ends at the first quote that no backslash precedes.
    let at = start;
    for (; at < this.#end; at++) {
      const code = text.charCodeAt(at);
      if (code === BACKSLASH) at++;
      else if (code === QUOTE) break;
    }
    close = at;
    if (close >= this.#end) throw new JsonError("syntax", `the string that starts at byte ${start} has no end`);
    this.#at = close + 1;
    return this.#unescape(text.slice(start, close), start);
  }

  #unescape(raw: ByteString, start: number): ByteString {
    let result = "";
    let from = 0;
    for (let at = raw.indexOf("\\"); at >= 0; at = raw.indexOf("\\", from)) {
      result += raw.slice(from, at);
      const kind = raw.charAt(at + 1);
      if (kind === "u") {
        const [units, length] = unicodeEscapes(raw, at);
        if (length === 0) throw new JsonError("syntax", `bad \\u escape at byte ${start + at}`);
        result += toBytes(units);
        from = at + length;
      } else {
        const plain = ESCAPES[kind];
        if (plain === undefined) throw new JsonError("syntax", `bad escape "\\${kind}" at byte ${start + at}`);
        result += plain;
        from = at + 2;
      }
    }
    return result + raw.slice(from);
  }

  #number(): ByteString {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match === null || this.#at + match[0].length > this.#end) throw this.#unexpected("a number");
    this.#at += match[0].length;
    return match[0];
  }

  #word(): ByteString {
    for (const word of ["true", "false", "null"]) {
      if (this.#text.startsWith(word, this.#at) && this.#at + word.length <= this.#end) {
        this.#at += word.length;
        return word;
      }
    }
    throw this.#unexpected("a value");
  }

  #unexpected(wanted: string): JsonError {
    const found = this.#at < this.#end ? `"${printable(this.#text.charCodeAt(this.#at))}"` : "the end";
    return new JsonError("syntax", `expected ${wanted}, found ${found}`);
  }
}

function printable(code: number): string {
  return code > 0x20 && code < 0x7f ? String.fromCharCode(code) : `\\x${code.toString(16).padStart(2, "0")}`;
}

/** A run of \uXXXX escapes at `at`, so that surrogate pairs stay together: its text and its length in `raw`; length 0 when malformed. */
function unicodeEscapes(raw: ByteString, at: number): [string, number] {
  let units = "";
  let from = at;
  while (raw.startsWith("\\u", from)) {
    const hex = raw.slice(from + 2, from + 6);
    if (!/^[0-9a-fA-F]{4}$/.test(hex)) return ["", 0];
    units += String.fromCharCode(Number.parseInt(hex, 16));
    from += 6;
  }
  return [Buffer.from(units, "utf16le").toString("utf16le"), from - at];
}

// The scanner against JSON.parse, and mutated bodies: nothing but rejections, and no neighbour lost.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromBytes } from "../../event/text.ts";
import type { KeyNode } from "./scan.ts";
import { JsonError, JsonScanner } from "./scan.ts";
import { decodeAll, LIMITS } from "./testing.ts";

class Path implements KeyNode<Path> {
  readonly expected: { written: string; node: Path }[] = [];
  readonly children = new Map<string, Path>();
  readonly path: readonly string[];
  constructor(path: readonly string[]) {
    this.path = path;
  }
  child(name: string): Path {
    const known = this.children.get(name) ?? new Path([...this.path, fromBytes(name)]);
    this.children.set(name, known);
    return known;
  }
}

/** The value of JSON text; inside lists a raw control character, which we take, stays as it is. */
const ok = (text: string): unknown => JSON.parse(text.replace(/[\n\t]/g, " "));

type Leaf = [path: readonly string[], type: string, value: unknown];
const root = new Path([]);

/** Leaves of an object as the scanner hands them out; undefined when it refuses the text. */
function scanned(text: string): Leaf[] | undefined {
  const leaves: Leaf[] = [];
  const bytes = Buffer.from(text, "utf8").toString("latin1");
  const scanner = new JsonScanner<Path>(bytes, 512, (key, value, type) => {
    const shown = fromBytes(value);
    leaves.push([key.path, type, type === "s" ? shown : type === "n" ? Number(shown) : ok(shown)]);
  });
  try {
    if (scanner.begin(0, bytes.length) !== 0x7b) return undefined;
    scanner.wholeObject(root);
    return leaves;
  } catch (error) {
    if (error instanceof JsonError) return undefined;
    throw error;
  }
}

function parsed(text: string): Leaf[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return typeof value === "object" && value !== null && !Array.isArray(value) ? leavesOf(value, []) : undefined;
}

function leavesOf(object: object, path: readonly string[]): Leaf[] {
  return Object.entries(object).flatMap(([name, value]: [string, unknown]): Leaf[] => {
    const at = [...path, name.toWellFormed()];
    if (typeof value === "string") return [[at, "s", value.toWellFormed()]];
    if (typeof value === "number") return [[at, "n", value]];
    if (typeof value === "boolean") return [[at, "b", value]];
    if (value === null || Array.isArray(value) || Object.keys(value as object).length === 0) return [[at, "j", value]];
    return leavesOf(value as object, at);
  });
}

/** Integer-like keys come first in JavaScript's objects. */
const sorted = (leaves: Leaf[] | undefined) => leaves?.map((leaf) => JSON.stringify(leaf)).sort();

/** JSON text of a value with white space and escapes at will. */
function written(value: unknown, choose: () => number): string {
  const space = () => ["", "", " ", "\t", "\r", " \n "][choose() % 6]!;
  const quoted = (text: string) =>
    `"${[...text].map((char) => (choose() % 4 === 0 || /["\\]|\p{Cc}|\p{Cs}/u.test(char) ? escaped(char) : char)).join("")}"`;
  const escaped = (char: string) =>
    [...Array(char.length).keys()].map((i) => `\\u${char.charCodeAt(i).toString(16).padStart(4, "0")}`).join("");
  const write = (part: unknown): string => {
    if (typeof part === "string") return quoted(part);
    if (Array.isArray(part)) return `[${space()}${part.map((item) => write(item) + space()).join(`,${space()}`)}]`;
    if (typeof part === "object" && part !== null) {
      return `{${space()}${Object.entries(part)
        .map(([key, item]) => `${quoted(key)}${space()}:${space()}${write(item)}${space()}`)
        .join(`,${space()}`)}}`;
    }
    return JSON.stringify(part);
  };
  return space() + write(value) + space();
}

const key = fc.oneof(fc.constantFrom("a", "b", "message", "level"), fc.string({ unit: "binary", maxLength: 6 }));
const json = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.string({ unit: "binary" }),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 3 }),
    tie("object"),
  ),
  object: fc.dictionary(key, tie("value"), { maxKeys: 5, noNullPrototype: true }),
})).object;
const choices = fc.infiniteStream(fc.nat(100)).map((stream) => () => stream.next().value as number);

describe("the scanner", () => {
  it("finds the leaves that JSON.parse finds", () => {
    fc.assert(
      fc.property(json, choices, (value, choose) => {
        const text = written(value, choose);
        expect(sorted(scanned(text))).toEqual(sorted(parsed(text)));
      }),
      { numRuns: 1000 },
    );
  });

  it("takes and refuses what JSON.parse does, but for raw control characters", () => {
    const alphabet = fc.constantFrom(...'{}[]:,"\\ \n\tetrufalsn0123456789.-+Eeabd/☃', "\\u", "true", "null", '":', '"a"', "1e5", "\u2028");
    const edit = fc.record({ at: fc.nat(), remove: fc.nat(2), insert: fc.oneof(fc.constant(""), alphabet) });
    fc.assert(
      fc.property(json, fc.array(edit, { minLength: 1, maxLength: 3 }), (value, edits) => {
        let text = JSON.stringify(value);
        for (const { at, remove, insert } of edits)
          text = text.slice(0, at % text.length) + insert + text.slice((at % text.length) + remove);
        text = text.toWellFormed();
        const [ours, theirs] = [scanned(text), parsed(text)];
        // Inside strings raw tabs and newlines are ours alone; a repeated key gives one more leaf here.
        if (theirs === undefined) expect(ours === undefined || /[\n\t]/.test(text)).toBe(true);
        else for (const leaf of sorted(theirs)!) expect(sorted(ours)).toContain(leaf);
      }),
      { numRuns: 3000 },
    );
  });

  it.each([
    ["{}", []],
    ['{"a":01}', undefined],
    ['{"a":+1}', undefined],
    ['{"a":.5}', undefined],
    ['{"a":1.}', undefined],
    ['{"a":-}', undefined],
    ['{"a":NaN}', undefined],
    ['{"a":1,}', undefined],
    ['{"a" 1}', undefined],
    ["{'a':1}", undefined],
    ['{"a":1}}', undefined],
    ['{"a":"\\x"}', undefined],
    ['{"a":"\\u12"}', undefined],
    ['{"a":"\\ud83d\\ude00"}', [[["a"], "s", "😀"]]],
    ['{"a":"\\ud83d"}', [[["a"], "s", "\ufffd"]]],
    ['{"a":"\\ude00\\ud83d"}', [[["a"], "s", "\ufffd\ufffd"]]],
    ['{"a":"x\ty"}', [[["a"], "s", "x\ty"]]],
    ['{"":{"":1}}', [[["", ""], "n", 1]]],
    [
      '{"a":1,"a":2}',
      [
        [["a"], "n", 1],
        [["a"], "n", 2],
      ],
    ],
    ['{"__proto__":{"constructor":1}}', [[["__proto__", "constructor"], "n", 1]]],
  ])("%s", (text, leaves) => {
    expect(scanned(text)).toEqual(leaves);
  });
});

describe("mutated bodies", () => {
  const edits = fc.array(fc.record({ at: fc.nat(), kind: fc.constantFrom("set", "insert", "delete"), byte: fc.nat(255) }), {
    minLength: 1,
    maxLength: 5,
  });
  // Newlines would join or split lines, and only the last key could make two lines one object.
  function mutate(line: string, changes: readonly { at: number; kind: string; byte: number }[]): Buffer {
    let bytes = Buffer.from(line);
    for (const { at, kind, byte } of changes) {
      const where = at % (bytes.length + 1);
      const added = kind === "delete" || byte === 0x0a ? [] : [byte];
      bytes = Buffer.concat([bytes.subarray(0, where), Buffer.from(added), bytes.subarray(where + (kind === "insert" ? 0 : 1))]);
    }
    return bytes;
  }
  const line = fc.record({
    message: fc.string(),
    n: fc.integer(),
    nested: fc.record({ deep: fc.string({ unit: "binary" }) }),
    time: fc.constant("2025-01-01T00:00:00Z"),
  });

  it("are rejected line by line", () => {
    fc.assert(
      fc.property(line, edits, (value, changes) => {
        const bad = mutate(JSON.stringify(value), changes);
        const body = Buffer.concat([Buffer.from('{"message":"before"}\n'), bad, Buffer.from('\n{"message":"after \\" it"}\n')]);
        const { bodies, rejections } = decodeAll(body, LIMITS);
        expect([bodies[0], bodies.at(-1)]).toEqual(["before", 'after " it']);
        expect(bodies.length + rejections.length).toBe(bad.toString("latin1").replace(/[ \t\r]/g, "") === "" ? 2 : 3);
        for (const { line } of rejections) expect(line).toBe(2);
      }),
      { numRuns: 3000 },
    );
  });

  it("of any bytes never throw", () => {
    fc.assert(
      fc.property(fc.constantFrom("", "[", "{", '[{"a":1},', '{"a":"\\'), fc.uint8Array({ maxLength: 200 }), (head, tail) => {
        decodeAll(Buffer.concat([Buffer.from(head), tail]), LIMITS);
      }),
      { numRuns: 3000 },
    );
  });

  it("an array counts the same records as lines do", () => {
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 8 }), choices, (values, choose) => {
        const lines = decodeAll(Buffer.from(values.map((value) => JSON.stringify(value)).join("\n")), LIMITS);
        const array = decodeAll(Buffer.from(`[${values.map((value) => written(value, choose)).join(",")}]`), LIMITS);
        expect([array.bodies, array.attributes]).toEqual([lines.bodies, lines.attributes]);
      }),
    );
  });
});

// Bodies larger than the pieces in which lines are decoded.

import { expect, it } from "vitest";
import { recordLimits } from "../decoded.ts";
import { decodeAll, SETTINGS } from "./testing.ts";

const LIMITS = recordLimits({ ...SETTINGS, recordBytesMax: 2 ** 20 }, Date.now());

function decode(text: string) {
  const { bodies, rejections } = decodeAll(Buffer.from(text), LIMITS);
  return { bodies, rejections: rejections.map(({ line, code }) => ({ line, code })) };
}

const line = (i: number): string => JSON.stringify({ message: `zeile ä ${i} ${"x".repeat(i % 700)}` });
const texts = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => JSON.parse(line(from + i)).message as string);
const lines = (from: number, to: number): string => Array.from({ length: to - from }, (_, i) => line(from + i)).join("\n");

it("reads every line once, in order, with its number, whatever pieces it falls into", () => {
  const { bodies, rejections } = decode(`${lines(0, 900)}\n{bad\n\n${lines(900, 1_500)}\n[1]\n`);
  expect(bodies).toEqual(texts(0, 1_500));
  expect(rejections).toEqual([
    { line: 901, code: "invalid_json" },
    { line: 1_503, code: "not_an_object" },
  ]);
});

it("takes a body that does not end with a line feed", () => {
  expect(decode(lines(0, 1_000)).bodies).toEqual(texts(0, 1_000));
});

it("rejects a broken first line alone", () => {
  const { bodies, rejections } = decode(`\n{"message":\n${lines(0, 1_000)}`);
  expect(bodies).toEqual(texts(0, 1_000));
  expect(rejections).toEqual([{ line: 2, code: "invalid_json" }]);
});

it("takes one object over many lines that is larger than a piece", () => {
  const object = { message: "one", list: Array.from({ length: 20_000 }, (_, i) => i) };
  const { bodies, rejections } = decode(`\n${JSON.stringify(object, undefined, 2)}\n`);
  expect([bodies, rejections]).toEqual([["one"], []]);
});

it("takes a line that is longer than a piece, and its neighbours", () => {
  const long = JSON.stringify({ message: "y".repeat(200_000) });
  expect(decode(`${line(1)}\n${long}\n${line(2)}`).bodies.map((body) => body.length)).toEqual([
    texts(1, 2)[0]!.length,
    200_000,
    texts(2, 3)[0]!.length,
  ]);
});

it("takes an array that is larger than a piece", () => {
  expect(decode(`  [${lines(0, 1_000).replaceAll("\n", ",\n")}]`).bodies).toEqual(texts(0, 1_000));
});

it("takes blank bodies of any size as no record", () => {
  expect(decode(" \n".repeat(100_000))).toEqual({ bodies: [], rejections: [] });
});

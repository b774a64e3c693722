// Where tails begin.

import { expect, it, test } from "vitest";
import type { TailSource } from "../streams/tail.ts";
import { tagOf, writeCursor } from "./cursor.ts";
import { tailStart } from "./start.ts";

const HEADS = [
  { created: "A", firstSeq: 5, lastSeq: 9 },
  { created: "B", firstSeq: 1, lastSeq: 0 },
];
const source: TailSource = {
  heads: async () => HEADS,
  seqAt: async (shard, storedMs) => (shard === 0 && storedMs < 100 ? 7 : undefined),
  follow: () => {
    throw new Error("nothing is followed yet");
  },
};
const [a, b] = [tagOf("A"), tagOf("B")];
const cursor = (first: [string, number, number], second: [string, number, number]): string =>
  writeCursor([first, second].map(([tag, seq, line]) => ({ tag, seq, line })));

test.each<[string, string | undefined, number | undefined, [number, number][], number]>([
  [
    "now",
    undefined,
    undefined,
    [
      [10, 0],
      [1, 0],
    ],
    0,
  ],
  [
    "at a time",
    undefined,
    50,
    [
      [7, 0],
      [1, 0],
    ],
    0,
  ],
  [
    "at a time that has not come",
    undefined,
    500,
    [
      [10, 0],
      [1, 0],
    ],
    0,
  ],
  [
    "at a cursor, whatever the time",
    cursor([a, 8, 3], [b, 1, 0]),
    50,
    [
      [8, 3],
      [1, 0],
    ],
    0,
  ],
  [
    "behind what is gone, which is said",
    cursor([a, 4, 2], [b, 1, 0]),
    undefined,
    [
      [5, 0],
      [1, 0],
    ],
    1,
  ],
  [
    "with streams that were made again, which is said",
    cursor(["x", 8, 3], ["y", 7, 0]),
    undefined,
    [
      [5, 0],
      [1, 0],
    ],
    2,
  ],
])("a tail begins %s", async (_, text, sinceMs, places, gaps) => {
  const start = await tailStart(source, text, sinceMs);
  expect(start.places.map(({ seq, line }) => [seq, line])).toEqual(places);
  expect([start.places.map(({ tag }) => tag), start.gaps.length]).toEqual([[a, b], gaps]);
});

it("refuses what is no cursor, or one of other shards", async () => {
  await expect(tailStart(source, "17", undefined)).rejects.toMatchObject({ code: "bad_request" });
  const one = writeCursor([{ tag: a, seq: 1, line: 0 }]);
  await expect(tailStart(source, one, undefined)).rejects.toMatchObject({
    code: "bad_request",
    message: expect.stringContaining("1 shards"),
  });
});

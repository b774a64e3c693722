import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { bodies } from "./generator.ts";
import { Random } from "./random.ts";
import { PLANTED, rareLine } from "./templates.ts";

const OPTIONS = { records: 20_000, batchRecords: 1_000, seed: 1, startMs: Date.UTC(2026, 0, 2, 6) };

interface Line {
  timestamp: string;
  level: string;
  service: string;
  message: string;
  attrs: { request_id: string; user_id: string; status: number; duration_ms: number; region: string };
}

async function textOf(options: Parameters<typeof bodies>[0]): Promise<string> {
  return Buffer.concat(await Array.fromAsync(bodies(options))).toString("utf8");
}

const linesOf = (text: string): Line[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);

test("the same seed gives the same bytes, however they are cut", async () => {
  const text = await textOf(OPTIONS);
  expect(await textOf({ ...OPTIONS, batchRecords: 333 })).toBe(text);
  expect(await textOf({ ...OPTIONS, seed: 2 })).not.toBe(text);
});

test("records look as promised", async () => {
  const text = await textOf(OPTIONS);
  const lines = linesOf(text);
  expect(lines).toHaveLength(OPTIONS.records);
  expect(text.length / lines.length).toBeGreaterThan(340);
  expect(text.length / lines.length).toBeLessThan(390);
  const share = (is: (line: Line) => boolean): number => lines.filter(is).length / lines.length;
  expect(share((line) => line.level === "error")).toBeCloseTo(0.05, 1);
  expect(share((line) => line.level === "info")).toBeCloseTo(0.7, 1);
  expect(share((line) => Number(line.attrs.user_id) < 12_500)).toBeCloseTo(0.5, 1);
  expect(new Set(lines.map((line) => line.attrs.request_id)).size).toBe(lines.length);
  expect(lines.every((line, i) => i === 0 || line.timestamp >= lines[i - 1]!.timestamp)).toBe(true);
  const spanMs = Date.parse(lines.at(-1)!.timestamp) - OPTIONS.startMs;
  expect(spanMs / lines.length).toBeCloseTo(1, 1);
});

test("what queries look for is there", async () => {
  const lines = linesOf(await textOf({ ...OPTIONS, records: 200_000 }));
  const { phrase, rareWords, pattern } = PLANTED;
  const withPhrase = lines.filter((line) => line.message.includes(phrase.text));
  expect(withPhrase.length / lines.length).toBeGreaterThan(0.005);
  expect(new Set(withPhrase.map((line) => line.service))).toEqual(new Set([phrase.service]));
  const eitherWord = lines.filter((line) => rareWords.words.some((word) => line.message.includes(word)));
  expect(eitherWord.length).toBeGreaterThan(0);
  expect(eitherWord.length).toBeLessThan(40);
  for (const word of rareWords.words) expect(rareLine(0, new Random(1))).toContain(word);
  expect(lines.some((line) => new RegExp(pattern).test(line.message))).toBe(true);
});

test("a probe takes the place of each batch's first record", async () => {
  const all = await Array.fromAsync(bodies({ ...OPTIONS, records: 2_000, probesFromMs: 0 }));
  expect(all.map((body) => linesOf(body.toString("utf8")).length)).toEqual([1_000, 1_000]);
  expect(linesOf(all[1]!.toString("utf8"))[0]).toMatchObject({ timestamp: "1970-01-01T00:00:00.001Z", message: "probe 1" });
});

test("a file is read again when it is too short; an empty one is an error", async () => {
  const dir = mkdtempSync(join(tmpdir(), "relog-load-"));
  try {
    const file = join(dir, "a.ndjson");
    writeFileSync(file, '{"a":1}\n{"a":2}');
    expect(await textOf({ ...OPTIONS, records: 3, file })).toBe('{"a":1}\n{"a":2}\n{"a":1}\n');
    writeFileSync(file, "\n");
    await expect(textOf({ ...OPTIONS, file })).rejects.toThrow("holds no line");
  } finally {
    rmSync(dir, { recursive: true });
  }
});

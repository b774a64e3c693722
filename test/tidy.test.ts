// The rules of the house. A rule that stands only in a document is none; a list below may only become shorter.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, it } from "vitest";

const FILE_LINES_MAX = 300;
const FUNCTION_LINES_MAX = 70;

/** Lists of data may be long. */
const DATA_FILES: readonly string[] = ["lib/query/sql/lists.ts", "lib/query/sql/attacks.ts", "lib/query/sql/honest.ts"];
/** Larger than they should be: file -> lines today. Take lines away, never add any. */
const LONG_FILES: Readonly<Record<string, number>> = {
  "lib/projector/settle.ts": 356,
  "test/contract/ingest.test.ts": 332,
  "test/fault/kit.ts": 310,
  "test/system/dev.test.ts": 311,
};
/** file -> lines of its longest function today. */
const LONG_FUNCTIONS: Readonly<Record<string, number>> = { "lib/projector/metrics.ts": 76 };
/** Folders of lib that anyone may import, lowest first. Every other folder is a feature. */
const LAYERS: readonly string[] = ["base", "event", "store", "streams"];

interface Source {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
  readonly imports: readonly string[];
  readonly test: boolean;
}

const TESTING = /\.test\.ts$|(^|\/)testing\.ts$/;

function read(path: string): Source {
  const text = readFileSync(path, "utf8");
  const imports = [
    ...text.matchAll(/^(?:import\s+|(?:import|export)\s[^;"'`=]*?\bfrom\s+)["']([^"'\n]+)["']|\bimport\(["']([^"'\n]+)["']\)/gm),
  ].map((match) => match[1] ?? match[2]!);
  return { path, text, lines: text.split("\n"), imports, test: TESTING.test(path) || path.startsWith("test/") };
}

const SOURCES = ["cmd", "lib", "test"]
  .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => `${folder}/${file}`))
  .filter((path) => /\.(ts|mjs)$/.test(path))
  .sort()
  .map(read);
const OURS = SOURCES.filter(({ test }) => !test);
const LIB = OURS.filter(({ path }) => path.startsWith("lib/"));

const folderOf = (path: string): string | undefined => /^lib\/([^/]+)\//.exec(path)?.[1];

function wrongImport(from: string, specifier: string): boolean {
  if (!specifier.startsWith(".")) return false;
  const to = normalize(join(dirname(from), specifier));
  const [here, there] = [folderOf(from), folderOf(to)];
  if (here === undefined) return false;
  if (there === undefined) return !to.startsWith("schemas/");
  if (here === there) return false;
  const [level, target] = [LAYERS.indexOf(here), LAYERS.indexOf(there)];
  if (target < 0) return true;
  if (level < 0) return false;
  return target >= level || (here === "streams" && there === "store");
}

/** Lines of the longest function: from a line that opens one to the bracket at its indentation. */
function longestFunction(lines: readonly string[]): number {
  let longest = 0;
  for (const [start, line] of lines.entries()) {
    const opens =
      /^(\s*)(?:export )?(?:default )?(?:async )?(?:function\b|(?:static |get |set |readonly )*#?\w+\([^;]*\)?.*\{$|const \w+ = .*=> \{$)/.exec(
        line,
      );
    if (opens === null || /^\s*(?:if|for|while|switch|return|describe|it|test|expect)\b/.test(line)) continue;
    const end = lines.findIndex((other, i) => i > start && other.startsWith(`${opens[1]}}`));
    longest = Math.max(longest, end - start + 1);
  }
  return longest;
}

const found = (sources: readonly Source[], pattern: RegExp): string[] =>
  sources.flatMap(({ path, lines }) => lines.flatMap((line, i) => (pattern.test(line) ? [`${path}:${i + 1}: ${line.trim()}`] : [])));

it("imports point down: cmd, features, store and streams, event, base; features never import each other", () => {
  expect(
    LIB.flatMap(({ path, imports }) => imports.filter((name) => wrongImport(path, name)).map((name) => `${path} imports ${name}`)),
  ).toEqual([]);
});

it.each<[string, string, boolean]>([
  ["lib/event/a.ts", "../base/b.ts", false],
  ["lib/ingest/ndjson/a.ts", "../../event/b.ts", false],
  ["lib/ingest/ndjson/a.ts", "../body.ts", false],
  ["cmd/a.ts", "../lib/ingest/b.ts", false],
  ["lib/base/a.ts", "../event/b.ts", true],
  ["lib/streams/a.ts", "../store/b.ts", true],
  ["lib/store/a.ts", "../streams/b.ts", true],
  ["lib/ingest/a.ts", "../projector/b.ts", true],
  ["lib/event/a.ts", "../ingest/b.ts", true],
  ["lib/query/a.ts", "../../cmd/b.ts", true],
])("%s may import %s: not %s", (from, to, wrong) => {
  expect(wrongImport(from, to)).toBe(wrong);
});

it.each([
  ["nats", "lib/streams/"],
  ["@clickhouse/client", "lib/store/"],
])("only one folder knows %s", (name, folder) => {
  const elsewhere = OURS.filter(
    ({ path, imports }) => !path.startsWith(folder) && imports.some((one) => one === name || one.startsWith(`${name}/`)),
  );
  expect(elsewhere.map(({ path }) => path)).toEqual([]);
});

it.each<[string, readonly Source[], RegExp]>([
  ["process.env is read by cmd only", LIB, /^(?!\s*(\/\/|\*)).*process\.env\b/],
  ["lib does not write to the console", LIB, /\bconsole\./],
  ["nothing is left to do in comments", SOURCES, new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`)],
  ["no path of one machine", SOURCES, /["'`](\/home\/|\/Users\/|\/root\/|\/work\/|[A-Z]:\\\\)/],
  ["no test is left out or alone", SOURCES, /\b(it|test|describe)\.(only|skip|todo)\b/],
])("%s", (_, sources, pattern) => {
  expect(
    found(
      sources.filter(({ path }) => path !== "test/tidy.test.ts"),
      pattern,
    ),
  ).toEqual([]);
});

it("every file opens with its promises", () => {
  expect(OURS.filter(({ path, lines }) => path.endsWith(".ts") && !/^(#!.*|\/\/ \S.*)$/.test(lines[0]!)).map(({ path }) => path)).toEqual(
    [],
  );
});

it("files are short, and long ones become shorter", () => {
  const long = SOURCES.filter(({ path, lines }) => !DATA_FILES.includes(path) && lines.length - 1 > (LONG_FILES[path] ?? FILE_LINES_MAX));
  expect(long.map(({ path, lines }) => `${path} has ${lines.length - 1} lines`)).toEqual([]);
});

it("functions are short, and long ones become shorter", () => {
  const long = OURS.map(({ path, lines }) => [path, longestFunction(lines)] as const).filter(
    ([path, length]) => length > (LONG_FUNCTIONS[path] ?? FUNCTION_LINES_MAX),
  );
  expect(long.map(([path, length]) => `${path} has a function of ${length} lines`)).toEqual([]);
});

it("every dependency is used", () => {
  const { dependencies, devDependencies } = JSON.parse(readFileSync("package.json", "utf8")) as Record<string, Record<string, string>>;
  const used = (name: string): boolean => SOURCES.some(({ imports }) => imports.some((one) => one === name || one.startsWith(`${name}/`)));
  const tools = ["@biomejs/biome", "@types/node", "typescript"];
  expect(Object.keys({ ...dependencies, ...devDependencies }).filter((name) => !tools.includes(name) && !used(name))).toEqual([]);
});

// The command line of `npm run bench`.

import { parseArgs } from "node:util";
import { PLANTED } from "../../lib/load/templates.ts";

export const PARTS = ["A", "B", "C", "D", "E", "F", "G"] as const;
export type Part = (typeof PARTS)[number];

export interface BenchOptions {
  readonly only: readonly Part[];
  readonly records: number;
  readonly rounds: number;
  readonly batchRecords: number;
  readonly connections: number;
  readonly steadySeconds: number;
  readonly steadyRate: number;
  readonly queryRecords: number;
  readonly codecRecords: number;
  readonly rebuildRecords: number;
  readonly rebuildSeconds: number;
  readonly tenantRounds: number;
  readonly tenantSeconds: number;
  readonly seed: number;
  readonly file: string | undefined;
  readonly phrase: string;
  readonly phraseWords: string;
  readonly rareWords: string;
  readonly service: string;
  readonly pattern: string;
  /** Environment of one service or of all (""). */
  readonly env: readonly { readonly service: string; readonly name: string; readonly value: string }[];
  readonly out: string;
}

export const HELP = `npm run bench -- [options]
  --only A,C           A whole path, B floor, C steady rate, D queries, E codec, F rebuild, G tenants (default: all)
  --quick              100k records, 5 s of steady rate, 500k records to query and to rebuild: for smoke use, not for figures
  --records N          of A and B (1000000)          --rounds N        of A and B, alternated (2)
  --batch N            records a request (1000)      --connections N   of the load client (8)
  --steady-rate N      records/s of C (20000)        --steady-seconds N  of C (30)
  --query-records N    of D (5000000)                --codec-records N of E (200000)
  --rebuild-records N  of F (3000000)                --rebuild-seconds N  of live load in F (66)
  --tenant-rounds N    of G, with and without noise (5)  --tenant-seconds N  of a window of G (20)
  --seed N             of the corpus (1)             --file FILE       NDJSON instead of the corpus
  --phrase TEXT --rare-words 'A B' --service NAME --pattern RE   what D looks for (for --file)
  --env [SERVICE:]NAME=VALUE   for gateway, projector, query or rebuild, or all; repeatable; RELOG_PLAN_* is passed on anyway
  --out FILE           (bench-results/latest.json)
`;

const NUMBERS = {
  records: 1_000_000,
  rounds: 2,
  batch: 1_000,
  connections: 8,
  "steady-seconds": 30,
  "steady-rate": 20_000,
  "query-records": 5_000_000,
  "codec-records": 200_000,
  "rebuild-records": 3_000_000,
  "rebuild-seconds": 66,
  "tenant-rounds": 5,
  "tenant-seconds": 20,
  seed: 1,
};
const QUICK = {
  records: 100_000,
  rounds: 1,
  "steady-seconds": 5,
  "query-records": 500_000,
  "codec-records": 50_000,
  "rebuild-records": 500_000,
  "rebuild-seconds": 24,
  "tenant-rounds": 1,
  "tenant-seconds": 5,
};
type NumberName = keyof typeof NUMBERS;

/** @throws Error that says what is wrong */
export function readOptions(args: readonly string[]): BenchOptions | "help" {
  const text = { type: "string" } as const;
  const numbers = Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, text])) as Record<NumberName, typeof text>;
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...numbers,
      only: text,
      quick: { type: "boolean" },
      help: { type: "boolean" },
      file: text,
      phrase: text,
      "rare-words": text,
      service: text,
      pattern: text,
      env: { type: "string", multiple: true },
      out: text,
    },
  });
  if (values.help) return "help";
  const number = (name: NumberName): number => {
    const given = Number(values[name] ?? (values.quick ? { ...NUMBERS, ...QUICK } : NUMBERS)[name]);
    if (!Number.isInteger(given) || given < 1) throw new Error(`--${name} takes a whole number of at least 1`);
    return given;
  };
  const only = (values.only ?? PARTS.join(",")).toUpperCase().split(",");
  const unknown = only.find((part) => !PARTS.includes(part as Part));
  if (unknown !== undefined) throw new Error(`--only takes ${PARTS.join(", ")}; not "${unknown}"`);
  const phrase = values.phrase ?? PLANTED.phrase.text;
  return {
    only: only as Part[],
    records: number("records"),
    rounds: number("rounds"),
    batchRecords: number("batch"),
    connections: number("connections"),
    steadySeconds: number("steady-seconds"),
    steadyRate: number("steady-rate"),
    queryRecords: number("query-records"),
    codecRecords: number("codec-records"),
    rebuildRecords: number("rebuild-records"),
    rebuildSeconds: number("rebuild-seconds"),
    tenantRounds: number("tenant-rounds"),
    tenantSeconds: number("tenant-seconds"),
    seed: number("seed"),
    file: values.file,
    phrase,
    phraseWords: phrase.toLowerCase(),
    rareWords: values["rare-words"] ?? PLANTED.rareWords.words.join(" "),
    service: values.service ?? "nginx",
    pattern: values.pattern ?? PLANTED.pattern,
    env: (values.env ?? []).map(readEnv),
    out: values.out ?? "bench-results/latest.json",
  };
}

function readEnv(given: string): BenchOptions["env"][number] {
  const match = /^(?:(gateway|projector|query|rebuild):)?([A-Z][A-Z0-9_]*)=(.*)$/.exec(given);
  if (match === null) throw new Error(`--env takes [SERVICE:]NAME=VALUE, not "${given}"`);
  return { service: match[1] ?? "", name: match[2]!, value: match[3]! };
}

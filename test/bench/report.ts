// The results as text for people.

import type { ByProcess } from "./proc.ts";
import { sumOf } from "./proc.ts";
import type { Results, Target } from "./targets.ts";
import { OURS } from "./targets.ts";
import type { WholePath } from "./whole-path.ts";

const fixed = (value: number, digits = 1): string => value.toFixed(digits);
const thousands = (value: number): string => Math.round(value).toLocaleString("en");

/** Rows of cells in columns: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  return rows
    .map((row) => `  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")}`.trimEnd())
    .join("\n");
}

function cpuRows(title: string, runs: readonly ByProcess[], names: readonly string[]): string[][] {
  const rows = names.map((name) => [`  ${name}`, ...runs.map((run) => fixed(run[name] ?? 0, 2))]);
  return [[title, ...runs.map((_, i) => `run ${i + 1}`)], ...rows];
}

function wholePathText({ wholePath, floor }: Results): string[] {
  if (wholePath === undefined) return [];
  const cell = (of: (run: WholePath) => string): string[] => wholePath.map(of);
  const rows: string[][] = [];
  for (const [title, field] of [
    ["CPU s per million, until searchable", "cpuSearchable"],
    ["CPU s per million, merges settled", "cpuSettled"],
  ] as const) {
    const runs = wholePath.map((run) => run[field]);
    rows.push(...cpuRows(title, runs, [...OURS, "load client"]), [
      "  relog, all processes",
      ...runs.map((run) => fixed(sumOf(run, OURS), 2)),
    ]);
    if (floor === undefined) continue;
    const floors = floor.map((run) => run[field]);
    rows.push(
      ...cpuRows("  floor", floors, ["clickhouse", "inserter"])
        .slice(1)
        .map(([name, ...cells]) => [`  floor:${name!.trimStart().padStart(11)}`, ...cells]),
    );
    rows.push(["  relog / floor", ...runs.map((run, i) => `${fixed(sumOf(run, OURS) / sumOf(floors[i] ?? floors[0]!), 2)}x`)]);
  }
  rows.push(
    ["records/s acknowledged", ...cell((run) => thousands(run.acknowledgedPerS))],
    ["records/s searchable", ...cell((run) => thousands(run.searchablePerS))],
    ["ack p50 / p99 ms", ...cell((run) => `${fixed(run.ackP50Ms)} / ${fixed(run.ackP99Ms)}`)],
    ["inserts, mean records", ...cell((run) => `${run.plans.length}, ${thousands(run.records / run.plans.length)}`)],
    ["table / stream bytes a record", ...cell((run) => `${fixed(run.tableBytesPerRecord)} / ${fixed(run.streamBytesPerRecord)}`)],
  );
  for (const name of OURS) rows.push([`peak MB: ${name}`, ...cell((run) => fixed(run.peakBytes[name]! / 1e6, 0))]);
  return [
    `A, B  whole path and floor, ${thousands(wholePath[0]!.records)} records a run, ${fixed(wholePath[0]!.bodyBytes / wholePath[0]!.records, 0)} bytes each`,
    table(rows),
  ];
}

function steadyText({ steady }: Results): string[] {
  if (steady === undefined) return [];
  const rows = [
    ["ack p50 / p99 ms", `${fixed(steady.ackP50Ms)} / ${fixed(steady.ackP99Ms)}`],
    [
      "acknowledged to searchable p50 / p99 / max ms",
      `${fixed(steady.searchableP50Ms, 0)} / ${fixed(steady.searchableP99Ms, 0)} / ${fixed(steady.searchableMaxMs, 0)}`,
    ],
    ["inserts", String(steady.inserts)],
    ...Object.entries(steady.cpuPerS).map(([name, share]) => [`CPU of a core: ${name}`, `${fixed(share * 100)}%`]),
    ["CPU s per million, all processes", fixed((sumOf(steady.cpuPerS, OURS) * 1e6) / steady.recordsPerS, 2)],
  ];
  return [`C  steady ${thousands(steady.recordsPerS)} records/s for ${fixed(steady.seconds, 0)} s`, table(rows)];
}

function queriesText({ queries }: Results): string[] {
  if (queries === undefined) return [];
  const rows = queries.results.map((result) => [
    result.name,
    fixed(result.serviceS * 1_000),
    fixed(result.directS * 1_000),
    fixed(result.peerS * 1_000, 0),
    queries.comparable ? `${fixed(result.peerS / result.serviceS)}x` : "-",
    String(result.rows),
  ]);
  const head = ["median ms", "service", "direct", "peer", "faster", "rows"];
  return [
    `D  queries on ${thousands(queries.records)} records in ${queries.parts} parts${queries.comparable ? "" : " (the peer's are of 5,000,000)"}`,
    table([head, ...rows]),
  ];
}

function codecText({ codec }: Results): string[] {
  if (codec === undefined) return [];
  const rows = [
    ["CPU s per million", "s", "bytes a record"],
    ["decode, block, zstd", fixed(codec.blockS, 2), fixed(codec.blockBytesPerRecord)],
    ["JSON.parse, JSON.stringify, zstd", fixed(codec.jsonS, 2), fixed(codec.jsonBytesPerRecord)],
    ["JSON.parse alone", fixed(codec.jsonParseOnlyS, 2), ""],
  ];
  return ["E  codec", table(rows)];
}

function rebuildText({ rebuild }: Results): string[] {
  if (rebuild === undefined) return [];
  const { live, alone, without, windows } = rebuild;
  const names = ["gateway", "nats", "clickhouse", "projector", "rebuild"];
  const backlog = [
    ["a backlog alone", "live", "rebuild"],
    ["records/s", thousands(live.recordsPerS), thousands(alone.recordsPerS)],
    ...names.map((name) => [`CPU s per million: ${name}`, ...[live, alone].map(({ cpu }) => fixed(cpu[name] ?? 0, 2))]),
    ["CPU s per million, all processes", ...[live, alone].map(({ cpu }) => fixed(sumOf(cpu), 2))],
    ["CPU of a core: others on the machine", ...[live, alone].map(({ othersCores }) => `${fixed(othersCores * 100, 0)}%`)],
  ];
  const parts = ["projecting", "verifying", "flipping"] as const;
  const took = `  the command took ${fixed(alone.totalS)} s: ${parts.map((part) => `${part} ${fixed(alone[`${part}S`])}`).join(", ")}`;
  const all = [without, rebuild.with, ...windows];
  const under = [
    ["under live load", "without", "with", ...windows.map((window) => (window.rebuild ? "with" : "without"))],
    ["records/s of the rebuild", "", thousands(rebuild.rebuildPerS), ...windows.map((w) => (w.rebuild ? thousands(w.rebuildPerS) : ""))],
    ["ack p50 ms", ...all.map((waits) => fixed(waits.ackP50Ms))],
    ["ack p99 ms", ...all.map((waits) => fixed(waits.ackP99Ms))],
    ["acknowledged to searchable p50 ms", ...all.map((waits) => fixed(waits.searchableP50Ms, 0))],
    ["acknowledged to searchable p99 ms", ...all.map((waits) => fixed(waits.searchableP99Ms, 0))],
    ...[...names, "load client", "others"].map((name) => [
      `CPU of a core: ${name}`,
      ...all.map((waits) => (waits.cpuPerS[name] === undefined ? "" : `${fixed(waits.cpuPerS[name] * 100, 0)}%`)),
    ]),
  ];
  return [
    `F  rebuild of ${thousands(rebuild.records)} records`,
    table(backlog),
    took,
    `  live load ${thousands(rebuild.rate)} records/s`,
    table(under),
  ];
}

function tenantsText({ tenants }: Results): string[] {
  if (tenants === undefined) return [];
  const { admission, many, without } = tenants;
  const columns = [without, tenants.with];
  const answers = (counts: Readonly<Record<number, number>>): string =>
    Object.entries(counts)
      .map(([status, count]) => `${status}: ${thousands(count)}`)
      .join(", ");
  const waits = [
    ["quiet tenant", "without", "with noise"],
    ["ack p50 / p99 ms", ...columns.map((one) => `${fixed(one.ackP50Ms)} / ${fixed(one.ackP99Ms)}`)],
    ["query p50 / p99 ms", ...columns.map((one) => `${fixed(one.queryP50Ms)} / ${fixed(one.queryP99Ms)}`)],
    ["acks, queries", ...columns.map((one) => `${one.acks}, ${one.queries}`)],
    ...Object.keys(without.cpuPerS).map((name) => [
      `CPU of a core: ${name}`,
      ...columns.map((one) => `${fixed((one.cpuPerS[name] ?? 0) * 100, 0)}%`),
    ]),
  ];
  return [
    "G  tenants",
    `  admission ${fixed(admission.callUs)} us a call, a refusal ${fixed(admission.refusalUs)} us; ${fixed(admission.recordUs, 3)} us a record of ${admission.callRecords}, the codec ${fixed(admission.codecRecordUs, 2)}`,
    `  ${thousands(many.tenants)} tenants with two keys: read in ${thousands(many.loadMs)} ms (${thousands(many.foldCpuMs)} ms of CPU to fold them), ${fixed(many.heapBytes / 1e6)} MB of heap`,
    table(waits),
    `  noisy tenant, answers: ingest ${answers(tenants.noise.ingest)}; query ${answers(tenants.noise.query)}`,
  ];
}

function targetsText(targets: readonly Target[]): string[] {
  if (targets.length === 0) return [];
  const rows = targets.map(({ name, measured, limit, atLeast, unit, pass }) => {
    const digits = Math.abs(limit) < 100 ? 2 : 0;
    return [name, fixed(measured, digits), `${atLeast ? ">=" : "<="} ${fixed(limit, digits)} ${unit}`, pass ? "pass" : "MISS"];
  });
  const missed = targets.filter(({ pass }) => !pass).length;
  return ["Targets", table(rows), missed === 0 ? "All targets are met." : `${missed} of ${targets.length} targets are missed.`];
}

export function reportText(results: Results, targets: readonly Target[]): string {
  return [
    wholePathText(results),
    steadyText(results),
    queriesText(results),
    codecText(results),
    rebuildText(results),
    tenantsText(results),
    targetsText(targets),
  ]
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n");
}

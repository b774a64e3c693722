// A: records go in at the gateway and come out of the table.

import type { LoadResult } from "../../lib/load/client.ts";
import { quantile } from "../../lib/load/client.ts";
import type { BenchOptions } from "./options.ts";
import type { ByProcess } from "./proc.ts";
import { mapValues, usageOf } from "./proc.ts";
import type { Stage } from "./stage.ts";
import { corpusStartMs, DATABASE, insertsOf, openStage, since } from "./stage.ts";
import { streamBytes } from "./streams.ts";
import { startWorker } from "./worker.ts";

const SEARCHABLE_CHECK_MS = 50;

/** Share of the records that is sent before anything is measured. */
const WARM_SHARE = 0.2;

export interface WholePath {
  readonly records: number;
  readonly bodyBytes: number;
  readonly acknowledgedPerS: number;
  readonly searchablePerS: number;
  readonly ackP50Ms: number;
  readonly ackP99Ms: number;
  readonly refusals: number;
  /** CPU seconds a million records, by process, the load client's too. */
  readonly cpuSearchable: ByProcess;
  readonly cpuSettled: ByProcess;
  readonly mergesEnded: boolean;
  readonly peakBytes: ByProcess;
  readonly tableBytesPerRecord: number;
  readonly streamBytesPerRecord: number;
  /** Records of each insert, in order. */
  readonly plans: readonly number[];
}

export function corpusOf(options: BenchOptions, records: number) {
  return {
    records,
    batchRecords: options.batchRecords,
    seed: options.seed,
    startMs: corpusStartMs(),
    ...(options.file === undefined ? {} : { file: options.file }),
  };
}

/** What goes to `POST /v1/ingest` of a stage. */
export function targetOf(stage: Stage, connections: number) {
  const headers = { Authorization: `Bearer ${stage.key}`, "Content-Type": "application/x-ndjson" };
  return { url: `${stage.services.gateway!.url}/v1/ingest`, headers, connections };
}

export async function wholePath(options: BenchOptions, env: NodeJS.ProcessEnv): Promise<WholePath> {
  const { records } = options;
  await using stage = await openStage(options, env, ["projector", "gateway"]);
  await using sender = await startWorker<{ bytes: number }, LoadResult>("sender", corpusOf(options, records));
  const cpu = (): ByProcess => ({ ...stage.cpu(), "load client": usageOf(sender.pid).cpuS });
  const perMillion = (used: ByProcess): ByProcess => mapValues(used, (seconds) => (seconds * 1e6) / records);

  const warmRecords = await warmUp(options, stage);
  const before = cpu();
  const begin = performance.now();
  const sent = await sender.go(targetOf(stage, options.connections));
  await stage.searchable(warmRecords + records, SEARCHABLE_CHECK_MS);
  const seconds = (performance.now() - begin) / 1_000;
  const cpuSearchable = perMillion(since(before, cpu()));
  const mergesEnded = await stage.settled();
  const cpuSettled = perMillion(since(before, cpu()));
  const [table] = await stage.ask<{ bytes: number }>(
    `SELECT sum(bytes_on_disk) AS bytes FROM system.parts WHERE database = '${DATABASE}' AND table = 'logs' AND active`,
  );
  return {
    records,
    bodyBytes: sender.prepared.bytes,
    acknowledgedPerS: records / sent.seconds,
    searchablePerS: records / seconds,
    ackP50Ms: quantile(sent.latenciesMs, 0.5),
    ackP99Ms: quantile(sent.latenciesMs, 0.99),
    refusals: sent.refusals,
    cpuSearchable,
    cpuSettled,
    mergesEnded,
    peakBytes: stage.peak(),
    tableBytesPerRecord: table!.bytes / (warmRecords + records),
    streamBytesPerRecord: (await streamBytes(stage.env, stage.shards)) / (warmRecords + records),
    plans: await insertedSizes(stage, records),
  };
}

/** Sends some records first, so that what is measured is a service that runs and not its compiler. Returns how many. */
async function warmUp(options: BenchOptions, stage: Stage): Promise<number> {
  const records = Math.ceil(options.records * WARM_SHARE);
  await using sender = await startWorker<{ bytes: number }, LoadResult>("sender", {
    ...corpusOf(options, records),
    seed: options.seed + 1,
  });
  await sender.go(targetOf(stage, options.connections));
  await stage.searchable(records, SEARCHABLE_CHECK_MS);
  return records;
}

/**
 * Sizes of the inserts in order: parts that were merged stay listed for minutes. When some are gone already, as many equal
 * ones as the projector counts.
 */
async function insertedSizes(stage: Stage, records: number): Promise<number[]> {
  const sql = `SELECT rows FROM system.parts WHERE database = '${DATABASE}' AND table = 'logs' AND level = 0 ORDER BY min_block_number`;
  const sizes: number[] = [];
  let left = records;
  // From the last on: the first ones were the warm-up.
  for (const { rows } of (await stage.ask<{ rows: number }>(sql)).reverse()) {
    if (left <= 0) break;
    sizes.unshift(rows);
    left -= rows;
  }
  if (left === 0) return sizes;
  const inserts = Math.max(1, await insertsOf(stage));
  return new Array<number>(inserts).fill(Math.ceil(records / inserts));
}

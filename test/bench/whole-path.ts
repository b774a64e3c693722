// A: records go in at the gateway and come out of the table.

import { quantile } from "../../lib/load/client.ts";
import type { LoadResult } from "../../lib/load/client.ts";
import type { BenchOptions } from "./options.ts";
import { mapValues, usageOf } from "./proc.ts";
import type { ByProcess } from "./proc.ts";
import { corpusStartMs, DATABASE, openStage, since } from "./stage.ts";
import { streamBytes } from "./streams.ts";
import { startWorker } from "./worker.ts";

const SEARCHABLE_CHECK_MS = 50;

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
  return { records, batchRecords: options.batchRecords, seed: options.seed, startMs: corpusStartMs(), ...(options.file === undefined ? {} : { file: options.file }) };
}

/** What goes to `POST /v1/ingest` of a stage. */
export function targetOf(stage: Awaited<ReturnType<typeof openStage>>, connections: number) {
  const headers = { Authorization: `Bearer ${stage.key}`, "Content-Type": "application/x-ndjson" };
  return { url: `${stage.services.gateway!.url}/v1/ingest`, headers, connections };
}

export async function wholePath(options: BenchOptions, env: NodeJS.ProcessEnv): Promise<WholePath> {
  const { records } = options;
  await using stage = await openStage(options, env, ["projector", "gateway"]);
  await using sender = await startWorker<{ bytes: number }, LoadResult>("sender", corpusOf(options, records));
  const cpu = (): ByProcess => ({ ...stage.cpu(), "load client": usageOf(sender.pid).cpuS });
  const perMillion = (used: ByProcess): ByProcess => mapValues(used, (seconds) => (seconds * 1e6) / records);

  const before = cpu();
  const begin = performance.now();
  const sent = await sender.go(targetOf(stage, options.connections));
  await stage.searchable(records, SEARCHABLE_CHECK_MS);
  const seconds = (performance.now() - begin) / 1_000;
  const cpuSearchable = perMillion(since(before, cpu()));
  const mergesEnded = await stage.settled();
  const cpuSettled = perMillion(since(before, cpu()));
  const [table] = await stage.ask<{ bytes: number }>(`SELECT sum(bytes_on_disk) AS bytes FROM system.parts WHERE database = '${DATABASE}' AND table = 'logs' AND active`);
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
    tableBytesPerRecord: table!.bytes / records,
    streamBytesPerRecord: (await streamBytes(stage.env, stage.shards)) / records,
    plans: await insertedParts(stage),
  };
}

/** Sizes of the parts as they were inserted: merged ones stay listed for minutes. */
async function insertedParts(stage: Awaited<ReturnType<typeof openStage>>): Promise<number[]> {
  const sql = `SELECT rows FROM system.parts WHERE database = '${DATABASE}' AND table = 'logs' AND level = 0 ORDER BY min_block_number`;
  return (await stage.ask<{ rows: number }>(sql)).map((part) => part.rows);
}

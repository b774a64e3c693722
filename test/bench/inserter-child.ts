// The floor's process: encodes the corpus beforehand, then does nothing but insert it, with the projector's own insert.

import { newBatchId } from "../../lib/event/ids.ts";
import type { CorpusOptions } from "../../lib/load/generator.ts";
import { bodies } from "../../lib/load/generator.ts";
import type { ClickHouseOptions } from "../../lib/store/client.ts";
import { openClickHouse } from "../../lib/store/client.ts";
import { engineTimeMs, inserter } from "../../lib/store/insert.ts";
import type { Frame } from "./frames.ts";
import { frameOf } from "./frames.ts";
import { runWorker } from "./worker.ts";

const FENCE_MS = 3_600_000;

export interface InsertOrder {
  readonly clickhouse: ClickHouseOptions;
  readonly database: string;
  /** Records of each insert, in order; the last one is repeated while there are frames. */
  readonly plans: readonly number[];
  /** Inserts at once: as many as there are shards. */
  readonly lanes: number;
}

export interface InsertPrepared {
  readonly records: number;
  readonly frameBytes: number;
  /** A line from the middle of the corpus. */
  readonly middle: string;
}

runWorker(
  async (work: CorpusOptions & { tenant: string }) => {
    const frames: Frame[] = [];
    let middle = "";
    const half = Math.floor(work.records / work.batchRecords / 2);
    for await (const body of bodies(work)) {
      if (frames.length === half) middle = body.toString("utf8", 0, body.indexOf(10));
      frames.push(await frameOf(body, work.tenant));
    }
    const sum = (of: (frame: Frame) => number): number => frames.reduce((total, frame) => total + of(frame), 0);
    return { state: frames, report: { records: sum((frame) => frame.records), frameBytes: sum((frame) => frame.bytes.length), middle } };
  },
  async (frames: Frame[], order: InsertOrder) => {
    await using clickhouse = openClickHouse(order.clickhouse);
    const insert = inserter(clickhouse);
    const fenceMs = (await engineTimeMs(clickhouse)) + FENCE_MS;
    const plans = [...order.plans];
    let inserts = 0;

    async function lane(own: Frame[]): Promise<void> {
      while (own.length > 0) {
        const wanted = plans.length > 1 ? plans.shift()! : plans[0]!;
        const taken: Frame[] = [];
        let records = 0;
        while (own.length > 0 && (taken.length === 0 || records + own[0]!.records <= wanted)) {
          records += own[0]!.records;
          taken.push(own.shift()!);
        }
        const token = newBatchId(Date.now());
        const outcome = await insert({
          database: order.database,
          token,
          queryId: `${token}/0`,
          frames: taken.map((frame) => frame.bytes),
          records,
          fenceMs,
        });
        if (outcome.kind !== "stored") throw new Error(`an insert failed: ${outcome.kind} ${outcome.message}`);
        inserts++;
      }
    }

    const begin = performance.now();
    await Promise.all(Array.from({ length: order.lanes }, (_, i) => lane(frames.filter((_, at) => at % order.lanes === i))));
    return { seconds: (performance.now() - begin) / 1_000, inserts };
  },
);

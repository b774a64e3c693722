// `GET /v1/receipts/{id}`: where a batch is.
//
// Promises: answers from the streams and the checkpoints, so also while ClickHouse is down; never about another tenant's
// batch; "projected" means that every message of the batch is behind the shard's watermark, and so in the table or parked.

import { Hono } from "hono";
import { RelogError } from "../base/errors.ts";
import type { Authenticate } from "../base/principal.ts";
import { authorize } from "../base/principal.ts";
import { isBatchId } from "../event/ids.ts";

/** The shapes of lib/streams/find.ts. */
export interface ReceiptPorts {
  findBatch(
    tenant: string,
    id: string,
  ): Promise<
    readonly {
      stream: string;
      shard: number;
      seq: number;
      storedMs: number;
      envelope: { part: number; parts: number; records: number; accepted: number; rejected: number; source: string };
    }[]
  >;
  findDeadLetters(
    shard: number,
    tenant: string,
    id: string,
  ): Promise<readonly { originSeq: number; reason: string; detail: string; lines: string; site: string }[]>;
  /** Every site with a projection: the first sequence of the shard that is not settled there. */
  checkpoints(shard: number): Promise<readonly { site: string; generation: number; next: number }[]>;
}

export function receiptsApi(authenticate: Authenticate, ports: ReceiptPorts): Hono {
  const app = new Hono();
  app.get("/v1/receipts/:id", async (c) => {
    const principal = await authorize(authenticate, (name) => c.req.header(name), "query");
    const id = c.req.param("id").toUpperCase();
    if (!isBatchId(id)) throw new RelogError("bad_request", "a receipt's id is the 26 characters that an ingest call answered with");
    const parts = await ports.findBatch(principal.tenant, id);
    const first = parts[0];
    if (first === undefined)
      throw new RelogError("not_found", `there is no batch ${id}: it was never stored, or its stream has let it go (RELOG_STREAM_AGE_MAX)`);
    const [checkpoints, dead] = await Promise.all([
      ports.checkpoints(first.shard),
      ports.findDeadLetters(first.shard, principal.tenant, id),
    ]);
    const last = Math.max(...parts.map((part) => part.seq));
    return c.json({
      id,
      stored: true,
      complete: parts.length === first.envelope.parts,
      accepted: first.envelope.accepted,
      rejected: first.envelope.rejected,
      source: first.envelope.source,
      parts: parts.map((part) => ({
        stream: part.stream,
        seq: part.seq,
        records: part.envelope.records,
        stored_at: new Date(part.storedMs).toISOString(),
      })),
      projected: checkpoints.map(({ site, generation, next }) => ({ site, generation, projected: next > last, watermark: next - 1 })),
      dead_letters: dead.map(({ originSeq, reason, detail, lines, site }) => ({ site, seq: originSeq, lines, reason, detail })),
    });
  });
  return app;
}

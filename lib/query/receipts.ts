// `GET /v1/receipts/{id}`: where a batch is.
//
// Promises: answers from the streams and the checkpoints, so also while ClickHouse is down; never about another tenant's
// batch; "projected" means that every message of the batch is behind the shard's watermark, and so in the table or parked. What is
// deferred or dropped over a quota has a receipt too: one that waits says until when, one that became a gap record is that batch.

import { Hono } from "hono";
import { messageOf, RelogError } from "../base/errors.ts";
import { Bound } from "../base/loop.ts";
import type { Authenticate } from "../base/principal.ts";
import { authorize } from "../base/principal.ts";
import { isBatchId } from "../event/ids.ts";

/** A message of a batch; the shape of lib/streams/find.ts. */
interface Part {
  readonly stream: string;
  readonly shard: number;
  readonly seq: number;
  readonly storedMs: number;
  readonly envelope: { part: number; parts: number; records: number; accepted: number; rejected: number; source: string };
  /** When it was first accepted, if it was deferred. */
  readonly deferredMs: number | undefined;
}

/** The shapes of lib/streams/find.ts. */
export interface ReceiptPorts {
  findBatch(tenant: string, id: string): Promise<readonly Part[]>;
  /** The messages of a batch that wait until their quota has room. */
  findDeferred(tenant: string, id: string): Promise<readonly Part[]>;
  /** What a quota drops and is still being counted: `id` will be the gap record's batch. */
  findGap(tenant: string, id: string): Promise<{ records: number; calls: number; reason: string; fromMs: number } | undefined>;
  /** How long something is deferred at most. */
  readonly deferGraceMs: number;
  findDeadLetters(
    shard: number,
    tenant: string,
    id: string,
  ): Promise<readonly { originSeq: number; reason: string; detail: string; lines: string; site: string }[]>;
  /** Every site with a projection: the first sequence of the shard that is not settled there. */
  checkpoints(shard: number): Promise<readonly { site: string; generation: number; next: number }[]>;
}

/** Receipts looked for at once: each reads headers of a stretch of a stream. */
const SEARCHES_MAX = 16;

export function receiptsApi(authenticate: Authenticate, ports: ReceiptPorts): Hono {
  const app = new Hono();
  const searches = new Bound(SEARCHES_MAX);

  /** Runs a search of the streams; a fault of theirs is not a defect. */
  async function search<T>(work: () => Promise<T>): Promise<T> {
    if (!searches.tryTake(1))
      throw new RelogError("too_many_requests", `${SEARCHES_MAX} receipts are being looked for`, { retryAfterS: 1 });
    try {
      return await work();
    } catch (cause) {
      if (cause instanceof RelogError) throw cause;
      throw new RelogError("stream_unavailable", `the streams cannot be searched now: ${messageOf(cause)}`, { cause, retryAfterS: 2 });
    } finally {
      searches.give(1);
    }
  }

  app.get("/v1/receipts/:id", async (c) => {
    const principal = await authorize(authenticate, (name) => c.req.header(name), "query");
    const id = c.req.param("id").toUpperCase();
    if (!isBatchId(id)) throw new RelogError("bad_request", "a receipt's id is the 26 characters that an ingest call answered with");
    const { stored, waiting } = await search(() => find(ports, principal.tenant, id));
    const parts = [...stored, ...waiting];
    const first = parts[0];
    if (first === undefined) {
      const gap = await search(() => ports.findGap(principal.tenant, id));
      if (gap !== undefined) return c.json(counted(id, gap));
      throw new RelogError(
        "not_found",
        `there is no batch ${id}: it was never stored, or its stream has let it go (RELOG_ARCHIVE_KEEP, without an archive RELOG_STREAM_AGE_MAX)`,
      );
    }
    const [checkpoints, dead] = await search(() =>
      Promise.all([ports.checkpoints(first.shard), ports.findDeadLetters(first.shard, principal.tenant, id)]),
    );
    const last = Math.max(...stored.map((part) => part.seq));
    const complete = parts.length === first.envelope.parts;
    return c.json({
      id,
      stored: true,
      complete,
      accepted: first.envelope.accepted,
      rejected: first.envelope.rejected,
      source: first.envelope.source,
      ...(waiting.length === 0 ? {} : { deferred: deferral(waiting, ports.deferGraceMs) }),
      parts: parts.map((part) => ({
        stream: part.stream,
        seq: part.seq,
        records: part.envelope.records,
        stored_at: new Date(part.storedMs).toISOString(),
        ...(part.deferredMs === undefined ? {} : { deferred_at: new Date(part.deferredMs).toISOString() }),
      })),
      projected: checkpoints.map(({ site, generation, next }) => ({
        site,
        generation,
        projected: complete && waiting.length === 0 && next > last,
        watermark: next - 1,
      })),
      dead_letters: dead.map(({ originSeq, reason, detail, lines, site }) => ({ site, seq: originSeq, lines, reason, detail })),
    });
  });
  return app;
}

/** A message is in LOGS before it leaves DEFERRED: what is in neither, one after the other, is looked for once more. */
async function find(ports: ReceiptPorts, tenant: string, id: string): Promise<{ stored: readonly Part[]; waiting: readonly Part[] }> {
  const stored = await ports.findBatch(tenant, id);
  const parts = stored[0]?.envelope.parts ?? 0;
  if (parts > 0 && stored.length === parts) return { stored, waiting: [] };
  const waiting = await ports.findDeferred(tenant, id);
  if (waiting.length === 0) return { stored: await ports.findBatch(tenant, id), waiting };
  return { stored, waiting: waiting.filter(({ envelope }) => stored.every((part) => part.envelope.part !== envelope.part)) };
}

/** What a batch that waits says besides. */
function deferral(waiting: readonly Part[], graceMs: number): { since: string; until: string; messages: number } {
  const sinceMs = Math.min(...waiting.map(({ storedMs }) => storedMs));
  return { since: new Date(sinceMs).toISOString(), until: new Date(sinceMs + graceMs).toISOString(), messages: waiting.length };
}

/** The receipt of a call that a quota dropped, until the gap record is stored under this id. */
function counted(id: string, { records, calls, reason, fromMs }: NonNullable<Awaited<ReturnType<ReceiptPorts["findGap"]>>>) {
  return { id, stored: false, dropped: { records, calls, since: new Date(fromMs).toISOString(), reason } };
}

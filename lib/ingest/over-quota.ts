// What becomes of a call when its tenant's quota is used up: refused, dropped and counted, or deferred.
//
// Promises: a call within its quota costs one synchronous question; a repeated idempotency key gets the first call's receipt,
// whatever the quota says now; a tenant's calls stay in order: while some of its records are deferred, new ones are too;
// what is dropped is counted durably before the answer.

import type { Clock } from "../base/clock.ts";
import { messageOf, RelogError } from "../base/errors.ts";
import type { Telemetry } from "../base/telemetry.ts";
import { messageId } from "../event/envelope.ts";
import { shardOf, timeOfBatchId } from "../event/ids.ts";
import type { Rejection } from "../event/record.ts";
import type { QuotaPort, QuotaVerdict } from "./quota.ts";
import { quotaExceeded } from "./quota.ts";

export type Way =
  | { readonly kind: "store" }
  | { readonly kind: "drop"; readonly reason: string }
  | { readonly kind: "defer"; readonly reason: string };

export interface Deferred {
  readonly reason: string;
  /** RFC 3339: what has no room in the quota by then becomes a gap. */
  readonly until: string;
}

/** What is known of a decoded call. */
export interface Counted {
  readonly accepted: number;
  readonly rejected: number;
  readonly errors: readonly Rejection[];
  /** Bytes of the records' texts: what usage counts. */
  readonly size: number;
}

/** The receipt of a call that is not stored: `id` will be the gap record's batch, `stream` and `seq` say where the count is. */
export interface Dropped extends Omit<Counted, "size"> {
  readonly id: string;
  readonly stream: string;
  readonly seq: number;
  readonly dropped: { readonly records: number; readonly reason: string };
}

export interface OverQuota {
  /** Where a call goes. @throws RelogError quota_exceeded, stream_unavailable */
  way(tenant: string, idempotencyKey: string | undefined): Way | Promise<Way>;
  /** Counts what a call loses; resolves with its receipt when that is durable. @throws RelogError stream_unavailable */
  drop(tenant: string, reason: string, call: Counted): Promise<Dropped>;
  /** Told when a call has been deferred. @returns what its receipt says besides */
  deferred(tenant: string, batch: string, records: number, reason: string): Deferred;
}

export interface OverQuotaPorts {
  readonly quotas: QuotaPort;
  readonly backlog: {
    /** Messages of the tenant that wait in DEFERRED, as far as is known. */
    count(tenant: string): number;
    note(tenant: string): void;
    /** False when some are still there after `waitMs` milliseconds. */
    ended(tenant: string, waitMs: number): Promise<boolean>;
  };
  /** Whether a stream remembers a de-duplication id. */
  known(place: "logs" | "deferred", shard: number, tenant: string, messageId: string): Promise<boolean>;
  /** Counts a drop in a register. */
  count(drop: { tenant: string; reason: string; records: number; size: number }): Promise<{ id: string; stream: string; seq: number }>;
}

/** Everything is within its quota: for processes and tests without any. */
export const WITHIN: OverQuota = {
  way: () => STORE,
  drop: () => Promise.reject(new Error("nothing is dropped without quotas")),
  deferred: () => {
    throw new Error("nothing is deferred without quotas");
  },
};

const STORE: Way = { kind: "store" };
/** So few messages are released in a moment: calls wait for that, or a steady producer's backlog would never end. */
const ENDING_MESSAGES = 32;
const ENDING_WAIT_MS = 5_000;
/** After a wait in vain. */
const ENDING_PAUSE_MS = 10_000;
const BEFORE_THEM = "records deferred earlier are stored first";

/** @param graceMs how long deferred records are kept */
export function overQuota(ports: OverQuotaPorts, shards: number, graceMs: number, clock: Clock, telemetry: Telemetry): OverQuota {
  const { quotas, backlog } = ports;
  const ways = new Ways(ports, shards, clock);
  const deferredRecords = telemetry.counter("relog_ingest_deferred_records_total", "records acknowledged into DEFERRED");
  const droppedRecords = telemetry.counter("relog_ingest_dropped_records_total", "records counted and not stored, over a quota");
  const droppedBytes = telemetry.counter("relog_ingest_dropped_bytes_total", "bytes of records counted and not stored, over a quota");
  return {
    way(tenant, idempotencyKey) {
      const verdict = quotas.verdict(tenant);
      if (verdict.kind === "within" && backlog.count(tenant) === 0) return STORE;
      return ways.over(tenant, idempotencyKey, verdict);
    },
    async drop(tenant, reason, { accepted, rejected, errors, size }) {
      const counted = await ports.count({ tenant, reason, records: accepted, size });
      droppedRecords.inc(accepted);
      droppedBytes.inc(size);
      return { ...counted, accepted, rejected, errors, dropped: { records: accepted, reason } };
    },
    deferred(tenant, batch, records, reason) {
      backlog.note(tenant);
      deferredRecords.inc(records);
      return { reason, until: new Date(timeOfBatchId(batch) + graceMs).toISOString() };
    },
  };
}

/** Where calls go that are over a quota, or behind others that were. */
class Ways {
  readonly #ports: OverQuotaPorts;
  readonly #shards: number;
  readonly #clock: Clock;
  /** Tenants whose backlog did not end when calls waited for it -> when that was. */
  readonly #inVain = new Map<string, number>();

  constructor(ports: OverQuotaPorts, shards: number, clock: Clock) {
    this.#ports = ports;
    this.#shards = shards;
    this.#clock = clock;
  }

  async over(tenant: string, idempotencyKey: string | undefined, verdict: QuotaVerdict): Promise<Way> {
    const first = idempotencyKey === undefined ? undefined : await this.#placeOfFirst(tenant, idempotencyKey);
    if (first === "logs") return STORE;
    if (first === "deferred") return this.#defer(tenant, "reason" in verdict ? verdict.reason : BEFORE_THEM);
    if (verdict.kind !== "within") return this.#judge(tenant, verdict);
    if (this.#ports.backlog.count(tenant) === 0) return STORE;
    if (!(await this.#backlogEnds(tenant))) return this.#defer(tenant, BEFORE_THEM);
    // It took a while: the quota may have ended with what was released.
    return this.#judge(tenant, this.#ports.quotas.verdict(tenant));
  }

  #judge(tenant: string, verdict: QuotaVerdict): Way {
    switch (verdict.kind) {
      case "within":
        return STORE;
      case "reject":
        throw quotaExceeded(verdict);
      case "drop":
        return { kind: "drop", reason: verdict.reason };
      case "defer":
        return this.#defer(tenant, verdict.reason);
      default:
        throw verdict satisfies never;
    }
  }

  #defer(tenant: string, reason: string): Way {
    // Before it is there, so that no call that comes now overtakes it.
    this.#ports.backlog.note(tenant);
    return { kind: "defer", reason };
  }

  /** Waits for the end of a backlog that is nearly released. */
  async #backlogEnds(tenant: string): Promise<boolean> {
    const { backlog } = this.#ports;
    const sinceMs = this.#clock.monotonicMs() - (this.#inVain.get(tenant) ?? Number.NEGATIVE_INFINITY);
    if (backlog.count(tenant) > ENDING_MESSAGES || sinceMs <= ENDING_PAUSE_MS) return false;
    const ended = await backlog.ended(tenant, ENDING_WAIT_MS);
    if (ended) this.#inVain.delete(tenant);
    else this.#inVain.set(tenant, this.#clock.monotonicMs());
    return ended;
  }

  /** Where the first call of a key is, if a stream remembers it. @throws RelogError stream_unavailable */
  async #placeOfFirst(tenant: string, idempotencyKey: string): Promise<"logs" | "deferred" | undefined> {
    const shard = shardOf(`${tenant}:${idempotencyKey}`, this.#shards);
    const id = messageId(tenant, `key:${idempotencyKey}`, 1);
    try {
      // In this order: a release stores in LOGS before it removes from DEFERRED, which remembers the id all the same.
      for (const place of ["logs", "deferred"] as const) if (await this.#ports.known(place, shard, tenant, id)) return place;
      return undefined;
    } catch (cause) {
      const text = `whether the idempotency key was used before cannot be told now: ${messageOf(cause)}`;
      throw new RelogError("stream_unavailable", text, { cause, retryAfterS: 2 });
    }
  }
}

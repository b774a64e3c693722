// The streams as data, and their reconciliation.
//
// Promises: what is missing is created; what differs is reported, field by field; nothing is ever changed or deleted.

import type { NatsConnection, StreamConfig } from "nats";
import { DiscardPolicy, NatsError, nanos, RetentionPolicy, StorageType } from "nats";
import { DAY_MS } from "../base/clock.ts";
import type { Values } from "../base/config.ts";
import { bytes, duration, integer, text } from "../base/config.ts";
import { messageOf } from "../base/errors.ts";
import type { Health } from "../base/health.ts";
import { backoffMs, sleep } from "../base/loop.ts";
import type { Logger } from "../base/telemetry.ts";
import { STREAMS, SUBJECTS } from "../event/envelope.ts";
import { JETSTREAM } from "./codes.ts";

/** For processes that only look into the streams. */
export const shardSettings = {
  shards: integer(
    "RELOG_SHARDS",
    "2",
    [1, 256],
    "streams",
    "how many LOGS streams the batches are spread over; the same for every process",
  ),
};

/** Here, because a stream must not drop by age what the archive does not have yet: every process that makes streams needs to know. */
export const archiveSetting = text(
  "RELOG_ARCHIVE",
  "",
  "where sealed segments are kept: a folder, or s3://bucket/prefix; empty means no archive",
);

/** For processes that only say until when something is deferred. */
export const deferSettings = {
  deferGraceMs: duration("RELOG_DEFER_GRACE", "7d", "how long a deferred record waits for its tenant's quota before it becomes a gap"),
};

export const topologySettings = {
  ...shardSettings,
  replicas: integer("RELOG_REPLICAS", "1", [1, 5], "copies", "replicas of every stream: 1 on one machine, 3 over three zones"),
  streamBytesMax: bytes("RELOG_STREAM_BYTES_MAX", "4GiB", "one LOGS stream; when it is full, ingestion answers 503 and nothing is lost"),
  streamAgeMaxMs: duration(
    "RELOG_STREAM_AGE_MAX",
    "7d",
    "without an archive: how long a LOGS stream keeps a batch, and so how far replay reaches; with one it keeps all that is not sealed",
  ),
  archive: archiveSetting,
  deadLetterBytesMax: bytes("RELOG_DEAD_LETTER_BYTES_MAX", "1GiB", "the DEAD_LETTERS stream"),
  deferredBytesMax: bytes(
    "RELOG_DEFERRED_BYTES_MAX",
    "1GiB",
    "the DEFERRED stream, where records over a quota wait; when it is full, calls that would be deferred are answered 429",
  ),
  ...deferSettings,
  dedupeWindowMs: duration("RELOG_DEDUPE_WINDOW", "10m", "how long an idempotency key is remembered"),
};

/** What we say of a stream; everything else is the server's default. */
export type StreamSpec = Pick<
  StreamConfig,
  | "name"
  | "subjects"
  | "num_replicas"
  | "max_bytes"
  | "max_age"
  | "duplicate_window"
  | "discard"
  | "storage"
  | "retention"
  | "allow_direct"
  | "max_msgs_per_subject"
  | "deny_delete"
>;

/** The server's own end of what is deferred lies behind the grace: by then a releaser has made a gap record of it, or none ran for days. */
const DEFERRED_MARGIN_MS = 3 * DAY_MS;

type Optional = "archive" | "deferredBytesMax" | "deferGraceMs";
type TopologyValues = Values<typeof topologySettings>;

/** Every stream of an installation. Without a bound or a grace, DEFERRED has none. */
export function topology(settings: Omit<TopologyValues, Optional> & Partial<Pick<TopologyValues, Optional>>): StreamSpec[] {
  const base = {
    num_replicas: settings.replicas,
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.New,
    duplicate_window: nanos(settings.dedupeWindowMs),
    max_age: 0,
    max_bytes: -1,
    max_msgs_per_subject: -1,
    allow_direct: true,
    deny_delete: false,
  };
  const logs = Array.from({ length: settings.shards }, (_, shard) => ({
    ...base,
    name: STREAMS.logs(shard),
    subjects: [SUBJECTS.logsOfShard(shard)],
    max_bytes: settings.streamBytesMax,
    max_age: (settings.archive ?? "") === "" ? nanos(settings.streamAgeMaxMs) : 0,
  }));
  return [
    ...logs,
    {
      ...base,
      name: STREAMS.deferred,
      subjects: ["deferred.>"],
      max_bytes: settings.deferredBytesMax ?? -1,
      max_age: settings.deferGraceMs === undefined ? 0 : nanos(settings.deferGraceMs + DEFERRED_MARGIN_MS),
    },
    { ...base, name: STREAMS.deadLetters, subjects: ["dead.>"], max_bytes: settings.deadLetterBytesMax },
    { ...base, name: STREAMS.control, subjects: ["control.>"], deny_delete: true },
    // A key-value bucket is a stream of this shape. Source: NATS ADR-8. Reads go to the leader (no direct access): a
    // checkpoint must not be read from a replica that lags.
    {
      ...base,
      name: `KV_${STREAMS.projections}`,
      subjects: [`$KV.${STREAMS.projections}.>`],
      max_msgs_per_subject: 1,
      allow_direct: false,
      duplicate_window: nanos(Math.min(settings.dedupeWindowMs, 120_000)),
    },
  ];
}

export interface Reconciled {
  readonly created: string[];
  /** One sentence per field of a stream that is not as declared. */
  readonly drift: string[];
}

/**
 * Creates missing streams and compares existing ones. Safe to run from many processes at once.
 * @throws NatsError when JetStream cannot be reached or refuses to create a stream
 */
export async function reconcile(nc: NatsConnection, specs: readonly StreamSpec[]): Promise<Reconciled> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  const result: Reconciled = { created: [], drift: [] };
  for (const spec of specs) {
    try {
      if (await ensure(spec)) result.created.push(spec.name);
    } catch (error) {
      throw new Error(`stream ${spec.name}: ${(error as Error).message}`, { cause: error });
    }
  }
  return result;

  /** True when the stream was created now. */
  async function ensure(spec: StreamSpec): Promise<boolean> {
    const found = await info(spec.name);
    if (found !== undefined) {
      result.drift.push(...driftOf(spec, found));
      return false;
    }
    try {
      await manager.streams.add({ ...spec, ...(spec.name.startsWith("KV_") ? { allow_rollup_hdrs: true } : {}) });
      return true;
    } catch (error) {
      // Another process was faster, with another configuration.
      if (!(error instanceof NatsError) || error.api_error?.err_code !== JETSTREAM.nameInUse) throw error;
      const theirs = await info(spec.name);
      if (theirs !== undefined) result.drift.push(...driftOf(spec, theirs));
      return false;
    }
  }

  async function info(name: string): Promise<StreamConfig | undefined> {
    try {
      return (await manager.streams.info(name)).config;
    } catch (error) {
      if (error instanceof NatsError && error.api_error?.err_code === JETSTREAM.streamNotFound) return undefined;
      throw error;
    }
  }
}

/** How an existing stream differs from what is declared. */
export function driftOf(spec: StreamSpec, actual: StreamConfig): string[] {
  return (Object.keys(spec) as (keyof StreamSpec)[]).flatMap((field) => {
    const [wanted, is] = [JSON.stringify(spec[field]), JSON.stringify(actual[field] ?? defaultOf(field))];
    return wanted === is ? [] : [`stream ${spec.name}: ${field} is ${is}, the settings say ${wanted}`];
  });
}

/** The server leaves out fields that have their zero value. */
function defaultOf(field: keyof StreamSpec): unknown {
  return field === "max_age" ? 0 : field === "deny_delete" || field === "allow_direct" ? false : undefined;
}

const RETRY_FIRST_MS = 200;
const RETRY_MAX_MS = 5_000;

/** Reconciles until it succeeds once, and keeps `health` told; JetStream may come up after us. Returns early when the signal aborts. */
export async function reconcileUntilDone(
  nc: NatsConnection,
  specs: readonly StreamSpec[],
  log: Logger,
  health: Health,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      const { created, drift } = await reconcile(nc, specs);
      if (created.length > 0) log.info({ created }, "created streams");
      for (const sentence of drift) log.warn(sentence);
      health.warn("streams", drift.length === 0 ? undefined : drift.join("; "));
      health.notReady("streams", undefined);
      return;
    } catch (error) {
      health.notReady("streams", messageOf(error));
      log.warn({ why: messageOf(error) }, "the streams cannot be made sure of yet");
      await sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS), signal);
    }
  }
}

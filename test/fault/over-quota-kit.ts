// A gateway in the test's own process: real streams, the product's own parts, and a quota that the test decides.

import { randomUUID } from "node:crypto";
import type { Hono } from "hono";
import type { NatsConnection } from "nats";
import { connect } from "nats";
import { openGap, openOverQuota, releasePorts } from "../../cmd/parts/deferred.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { Health } from "../../lib/base/health.ts";
import { withContractErrors } from "../../lib/base/http.ts";
import { SCOPES } from "../../lib/base/principal.ts";
import { createTelemetry } from "../../lib/base/telemetry.ts";
import type { ReleasePorts, ReleaseQuota, Room } from "../../lib/deferred/release.ts";
import { runReleases } from "../../lib/deferred/release.ts";
import { acceptor } from "../../lib/ingest/accept.ts";
import type { Admission } from "../../lib/ingest/admit.ts";
import { admission } from "../../lib/ingest/admit.ts";
import { ingestApi } from "../../lib/ingest/gateway.ts";
import { nativeIngest } from "../../lib/ingest/native/serve.ts";
import type { QuotaPort, QuotaVerdict } from "../../lib/ingest/quota.ts";
import { UNBOUNDED } from "../../lib/ingest/tenancy.ts";
import { receiptsApi } from "../../lib/query/receipts.ts";
import { appender } from "../../lib/streams/append.ts";
import { shardProgress } from "../../lib/streams/checkpoints.ts";
import { envelopeAt } from "../../lib/streams/envelope-at.ts";
import { findBatch, findDeadLetters, findDeferred } from "../../lib/streams/find.ts";
import { reconcile, topology } from "../../lib/streams/topology.ts";

export const SHARDS = 2;
const RECORDS = { recordBytesMax: 262_144, attributesMax: 100, depthMax: 8, keyBytesMax: 256, futureMaxMs: 86_400_000 };
const BODY = { bodyBytesMax: 10_000_000, decodedBytesMax: 20_000_000, ratioMax: 200 };
export const APPEND = { appendTimeoutMs: 5_000, ackTimeoutMs: 1_000 };
export const STREAMS_OF_TEST = {
  shards: SHARDS,
  replicas: 1,
  streamBytesMax: 4 * 2 ** 30,
  streamAgeMaxMs: 7 * 86_400_000,
  deadLetterBytesMax: 2 ** 30,
  deferredBytesMax: 2 ** 30,
  deferGraceMs: 7 * 86_400_000,
  dedupeWindowMs: 600_000,
  archive: "",
};

export interface Engines {
  readonly natsUrl: string;
  readonly natsUser: string;
  readonly natsPassword: string;
}

/** A quota that says what it was told to say. */
export class Decision implements QuotaPort, ReleaseQuota {
  verdictNow: QuotaVerdict = { kind: "within" };
  room: Room = { records: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY };
  readonly seen: { tenant: string; records: number }[] = [];

  verdict(): QuotaVerdict {
    return this.verdictNow;
  }

  left(): Room {
    return this.room;
  }

  stored(message: { tenant: string; records: number; size: number }): void {
    this.seen.push(message);
    this.room = { records: this.room.records - message.records, bytes: this.room.bytes - message.size };
  }

  is(kind: "reject" | "drop" | "defer" | "within"): void {
    const reason = "records_per_day (1000) is used up until 2099-01-01T00:00:00Z";
    this.verdictNow = kind === "within" ? { kind } : { kind, reason, retryAfterS: 77 };
  }
}

export interface Answer {
  readonly status: number;
  readonly retryAfter: string | null;
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
  readonly json: any;
}

export async function connectTo(engines: Engines): Promise<NatsConnection> {
  const who = { user: engines.natsUser, pass: engines.natsPassword };
  return await connect({ servers: engines.natsUrl.split(","), ...who, waitOnFirstConnect: true, noAsyncTraces: true });
}

/** A gateway whose quota the test decides. */
export class QuotaGateway implements AsyncDisposable {
  readonly nc: NatsConnection;
  readonly decision: Decision;
  readonly app: Hono;
  readonly receipts: Hono;
  readonly health: Health;
  readonly admitted: Admission;
  readonly native: ReturnType<typeof nativeIngest>;
  readonly #dedupeWindowMs: number;
  readonly #owned: AsyncDisposableStack;

  private constructor(
    nc: NatsConnection,
    decision: Decision,
    apps: Pick<QuotaGateway, "app" | "receipts" | "native" | "admitted" | "health">,
    dedupeWindowMs: number,
    owned: AsyncDisposableStack,
  ) {
    [this.nc, this.decision, this.app, this.receipts] = [nc, decision, apps.app, apps.receipts];
    [this.native, this.admitted, this.health] = [apps.native, apps.admitted, apps.health];
    this.#dedupeWindowMs = dedupeWindowMs;
    this.#owned = owned;
  }

  /** @param settings replace those of the streams; `messageBytesMax` and `gapIntervalMs` besides */
  static async open(
    engines: Engines,
    settings: Partial<typeof STREAMS_OF_TEST> & { messageBytesMax?: number; gapIntervalMs?: number } = {},
  ): Promise<QuotaGateway> {
    const all = { ...STREAMS_OF_TEST, messageBytesMax: 524_288, gapIntervalMs: 60_000, ...settings };
    await using undo = new AsyncDisposableStack();
    const nc = await connectTo(engines);
    undo.defer(() => nc.close());
    await reconcile(nc, topology(all));
    const decision = new Decision();
    const [health, telemetry] = [new Health(), createTelemetry("gateway", "silent", false)];
    const append = appender(nc, APPEND);
    const over = undo.use(await openOverQuota(nc, all, append, decision, health, telemetry, AbortSignal.timeout(30_000)));
    const tenancy = { ...UNBOUNDED, quotas: decision, over };
    const taking = { ...RECORDS, messageBytesMax: all.messageBytesMax, errorsReportedMax: 20 };
    const accept = acceptor(taking, SHARDS, append, (stream, seq) => envelopeAt(nc, stream, seq), systemClock, telemetry, tenancy);
    const admitted = admission({ requestsInFlightMax: 1_000, bytesInFlightMax: 50_000_000, tenantSharePercent: 100 }, telemetry);
    const who = (tenant: string) => ({ tenant, keyId: "k", scopes: SCOPES });
    const answers = receiptsApi(who, {
      findBatch: (tenant, id) => findBatch(nc, SHARDS, tenant, id),
      findDeferred: (tenant, id) => findDeferred(nc, tenant, id),
      findGap: (tenant, id) => openGap(nc, tenant, id),
      deferGraceMs: all.deferGraceMs,
      findDeadLetters: (shard, tenant, id) => findDeadLetters(nc, shard, tenant, id),
      checkpoints: (shard) => shardProgress(nc, shard),
    });
    const receipts = withContractErrors(answers, telemetry.log);
    const app = ingestApi(who, accept, admitted, BODY, telemetry, tenancy);
    const native = nativeIngest(who, accept, admitted, BODY, telemetry, tenancy);
    return new QuotaGateway(nc, decision, { app, receipts, native, admitted, health }, all.dedupeWindowMs, undo.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }

  /** The key is the tenant's name here. */
  async post(body: string, key?: string, tenant = "default"): Promise<Answer> {
    const headers = { authorization: `Bearer ${tenant}`, ...(key === undefined ? {} : { "idempotency-key": key }) };
    const answer = await this.app.request("/v1/ingest", { method: "POST", body, headers });
    return { status: answer.status, retryAfter: answer.headers.get("retry-after"), json: await answer.json() };
  }

  /** What a releaser under this gateway's decision works with. */
  releasePorts(): ReleasePorts {
    const health = new Health();
    const telemetry = createTelemetry("scheduler", "silent", false);
    const { deferGraceMs } = STREAMS_OF_TEST;
    const settings = { ...APPEND, dedupeWindowMs: this.#dedupeWindowMs, shards: SHARDS, leaseMs: 2_000, deferGraceMs, failpoint: "" };
    return releasePorts({ nc: this.nc, settings, quota: this.decision, owner: `test/${randomUUID()}`, health, telemetry });
  }

  /** Runs a releaser until it is disposed. */
  releaser(graceMs = STREAMS_OF_TEST.deferGraceMs): AsyncDisposable {
    const leave = new AbortController();
    const running = runReleases(this.releasePorts(), graceMs, leave.signal);
    return {
      async [Symbol.asyncDispose]() {
        leave.abort();
        await running;
      },
    };
  }

  async receipt(id: string, tenant = "default"): Promise<Answer> {
    const answer = await this.receipts.request(`/v1/receipts/${id}`, { headers: { authorization: `Bearer ${tenant}` } });
    return { status: answer.status, retryAfter: null, json: await answer.json() };
  }
}

// NATS-native ingestion: a producer publishes to `ingest.<tenant>` and gets a JetStream-shaped acknowledgement.
//
// Promises: the same decoding, bounds and receipts as over HTTP; a plain JetStream publish and a request both work;
// `Nats-Msg-Id` (or `Idempotency-Key`) is the producer's idempotency key; a publish that nobody waits for is stored all
// the same, and what goes wrong with it is counted and logged.

import type { Values } from "../../base/config.ts";
import { errorBody, RelogError, toRelogError } from "../../base/errors.ts";
import type { Principal } from "../../base/principal.ts";
import type { Telemetry } from "../../base/telemetry.ts";
import type { Accept } from "../accept.ts";
import type { Admission } from "../admit.ts";
import { type bodySettings, readBody } from "../body.ts";
import { ingestLatency } from "../latency.ts";
import { decodeNdjson } from "../ndjson/decode.ts";
import { fieldMaps } from "../ndjson/rename.ts";
import { refuseEarly } from "../quota.ts";
import type { Tenancy } from "../tenancy.ts";
import { UNBOUNDED } from "../tenancy.ts";

/** The shape of lib/streams/serve.ts's requests. */
export interface NativeRequest {
  readonly subject: string;
  readonly payload: Uint8Array;
  header(name: string): string | undefined;
  /** Where the answer goes; undefined when nobody waits for one. */
  readonly reply: string | undefined;
  /** The name of the producer's connection, when its server vouches for it. */
  readonly sender: string | undefined;
}

/** Whose message on a tenant's subject this is; undefined when no tenant has that name, it may not send, or the sender is not its. */
export type SubjectCaller = (tenant: string, sender: string | undefined) => Principal | undefined;

const SOURCE = "nats";

/** JetStream's numbers for what our codes mean, so that its clients retry what is worth it. Source: nats-server, server/errors.json. */
const JETSTREAM_CODES: Readonly<Record<number, number>> = { 400: 10_003, 413: 10_054, 422: 10_003, 429: 10_167, 503: 10_008 };

type Answer = Record<string, unknown>;

/** @returns the handler of a request on `ingest.<tenant>`: its answer is a PubAck with the receipt's fields beside */
export function nativeIngest(
  callerOf: SubjectCaller,
  accept: Accept,
  admission: Admission,
  settings: Values<typeof bodySettings>,
  telemetry: Telemetry,
  tenancy: Pick<Tenancy, "limits" | "quotas"> = UNBOUNDED,
): (request: NativeRequest) => Promise<Answer> {
  const requests = telemetry.counter("relog_ingest_requests_total", "calls by outcome", ["source", "outcome"]);
  const latency = ingestLatency(telemetry);
  const store = storing(callerOf, accept, admission, settings, tenancy);

  return async (request) => {
    const { subject, reply } = request;
    const end = latency.startTimer({ source: SOURCE });
    try {
      const answer = await store(request);
      requests.inc({ source: SOURCE, outcome: "ok" });
      return answer;
    } catch (thrown) {
      const error = toRelogError(thrown);
      requests.inc({ source: SOURCE, outcome: error.code });
      if (error.code === "internal" || reply === undefined) telemetry.log.error({ err: thrown, subject }, "a NATS publish was not stored");
      return pubAckError(error);
    } finally {
      end();
    }
  };
}

/** The tenant that a subject `ingest.<tenant>` names. */
export const tenantIn = (subject: string): string => subject.slice("ingest.".length);

/** From a message to its receipt. */
function storing(
  callerOf: SubjectCaller,
  accept: Accept,
  admission: Admission,
  settings: Values<typeof bodySettings>,
  tenancy: Pick<Tenancy, "limits" | "quotas">,
): (request: NativeRequest) => Promise<Answer> {
  const fieldMapOf = fieldMaps();
  return async (request) => {
    const principal = callerOf(tenantIn(request.subject), request.sender);
    if (principal === undefined) throw new RelogError("forbidden", `the subject ${request.subject} is no tenant's, or the key has ended`);
    const { tenant } = principal;
    const limits = tenancy.limits(principal);
    limits.enter();
    const idempotencyKey = request.header("nats-msg-id") ?? request.header("idempotency-key");
    refuseEarly(tenancy.quotas.verdict(tenant), idempotencyKey);
    const contentType = request.header("content-type") ?? "application/x-ndjson";
    if (!/json/i.test(contentType))
      throw new RelogError(
        "unsupported_media_type",
        `Content-Type "${contentType.slice(0, 80)}" is not taken here; send application/x-ndjson`,
      );
    const fields = fieldMapOf((name) => request.header(name) ?? request.header(name.replaceAll("_", "-")));
    const encoding = request.header("content-encoding");
    const body = await readBody(once(request.payload), request.payload.length, encoding, settings, admission.bytes(tenant));
    try {
      limits.body(body.bytes.length);
      const call = { tenant, source: SOURCE, body: body.bytes, idempotencyKey, charge: (records: number) => limits.records(records) };
      const receipt = await admission.admit(tenant, () => accept(call, (bytes, bounds, out) => decodeNdjson(bytes, fields, bounds, out)));
      return { ...receipt };
    } finally {
      body.release();
    }
  };
}

/** An error in the shape of a JetStream acknowledgement. */
function pubAckError(error: RelogError): Answer {
  const { status } = error.entry;
  return {
    error: {
      ...errorBody(error).error,
      code: status,
      err_code: JETSTREAM_CODES[status] ?? 10_003,
      description: `${error.code}: ${error.message}`,
      ...(error.retryAfterS === undefined ? {} : { retry_after: Math.max(1, Math.ceil(error.retryAfterS)) }),
    },
  };
}

async function* once(payload: Uint8Array): AsyncGenerator<Uint8Array> {
  yield payload;
}

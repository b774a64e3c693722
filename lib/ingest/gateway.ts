// The HTTP side of ingestion: `POST /v1/ingest`.
//
// Promises: the tenant comes from the key; the answer comes after JetStream's acknowledgement; every refusal has a code,
// a reason and, when a retry helps, Retry-After.

import type { HttpBindings } from "@hono/node-server";
import type { Context } from "hono";
import { Hono } from "hono";
import type { Values } from "../base/config.ts";
import { RelogError, toRelogError } from "../base/errors.ts";
import { withContractErrors } from "../base/http.ts";
import type { Authenticate } from "../base/principal.ts";
import { authorize } from "../base/principal.ts";
import type { Telemetry } from "../base/telemetry.ts";
import type { Accept } from "./accept.ts";
import type { Admission } from "./admit.ts";
import { type bodySettings, readBody } from "./body.ts";
import { ingestLatency } from "./latency.ts";
import type { CallLimits } from "./limits.ts";
import { decodeNdjson } from "./ndjson/decode.ts";
import { fieldMaps, RENAME_PARAMETERS } from "./ndjson/rename.ts";
import { refuseEarly } from "./quota.ts";
import type { Tenancy } from "./tenancy.ts";
import { UNBOUNDED } from "./tenancy.ts";

/** Types that are certainly something else than JSON; anything else is tried, because `curl -d` says "form". */
const FOREIGN_TYPE = /^(multipart\/|application\/(x-protobuf|vnd\.|octet-stream\+)|image\/|audio\/|video\/)/i;
const PARAMETERS: readonly string[] = RENAME_PARAMETERS;

export function ingestApi(
  authenticate: Authenticate,
  accept: Accept,
  admission: Admission,
  settings: Values<typeof bodySettings>,
  telemetry: Telemetry,
  tenancy: Pick<Tenancy, "limits" | "quotas"> = UNBOUNDED,
): Hono {
  const app = new Hono();
  const fieldMapOf = fieldMaps();
  const requests = telemetry.counter("relog_ingest_requests_total", "calls by outcome", ["source", "outcome"]);
  const latency = ingestLatency(telemetry);

  app.post("/v1/ingest", async (c) => {
    const end = latency.startTimer({ source: "ndjson" });
    let said: CallLimits | undefined;
    try {
      const principal = await authorize(authenticate, (name) => c.req.header(name), "ingest");
      const limits = tenancy.limits(principal);
      said = limits;
      limits.enter();
      const idempotencyKey = c.req.header("idempotency-key");
      refuseEarly(tenancy.quotas.verdict(principal.tenant), idempotencyKey);
      const contentType = c.req.header("content-type") ?? "";
      if (FOREIGN_TYPE.test(contentType)) {
        throw new RelogError(
          "unsupported_media_type",
          `Content-Type "${contentType.slice(0, 80)}" is not taken here; send application/x-ndjson or application/json`,
        );
      }
      const unknown = Object.keys(c.req.query()).find((name) => !PARAMETERS.includes(name));
      if (unknown !== undefined)
        throw new RelogError("bad_request", `there is no parameter "${unknown.slice(0, 80)}"; known are ${PARAMETERS.join(", ")}`);
      const fields = fieldMapOf((name) => c.req.query(name));
      const { tenant } = principal;
      const room = admission.bytes(tenant);
      const body = await readBody(chunksOf(c), contentLengthOf(c), c.req.header("content-encoding"), settings, room);
      try {
        // A body may come long after its headers: a key that was revoked meanwhile stores nothing.
        await authorize(authenticate, (name) => c.req.header(name), "ingest");
        limits.body(body.bytes.length);
        const charge = (records: number): void => limits.records(records);
        const call = { tenant, source: "ndjson", body: body.bytes, idempotencyKey, charge };
        const receipt = await admission.admit(tenant, () => accept(call, (bytes, bounds, out) => decodeNdjson(bytes, fields, bounds, out)));
        requests.inc({ source: "ndjson", outcome: "ok" });
        sayLimits(c, limits);
        return c.json(receipt);
      } finally {
        body.release();
      }
    } catch (error) {
      sayLimits(c, said);
      requests.inc({ source: "ndjson", outcome: toRelogError(error).code });
      throw error;
    } finally {
      end();
    }
  });
  app.all("/v1/ingest", (c) => {
    c.header("Allow", "POST");
    throw new RelogError("method_not_allowed", `${c.req.method} /v1/ingest does not exist; use POST`);
  });
  return withContractErrors(app, telemetry.log);
}

function sayLimits(c: Context, limits: CallLimits | undefined): void {
  for (const [name, value] of limits?.fields() ?? []) c.header(name, value);
}

function contentLengthOf(c: Context): number | undefined {
  const header = c.req.header("content-length");
  return header !== undefined && /^\d+$/.test(header) ? Number(header) : undefined;
}

/** The body's chunks: from Node's socket when there is one (cheaper), else from the request. */
function chunksOf(c: Context): AsyncIterable<Uint8Array> {
  return (c.env as Partial<HttpBindings> | undefined)?.incoming ?? c.req.raw.body ?? new Blob([]).stream();
}

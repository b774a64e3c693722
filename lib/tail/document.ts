// The live tail in the OpenAPI document: an answer without end is described here by hand.

import type { ErrorCode } from "../base/errors.ts";
import { ERRORS } from "../base/errors.ts";
import type { OpenApi } from "../base/openapi.ts";
import { LEVELS } from "../event/severity.ts";

const ERROR_CODES: readonly ErrorCode[] = [
  "bad_request",
  "unauthenticated",
  "forbidden",
  "not_acceptable",
  "too_many_tails",
  "not_ready",
  "stream_unavailable",
];

const text = (description: string) => ({ type: "string", description });
const parameter = (name: string, schema: Readonly<Record<string, unknown>>) => ({ name, in: "query" as const, required: false, schema });
const PARAMETERS = [
  parameter("service", text("Records of this service.")),
  parameter("level", { type: "string", enum: LEVELS.slice(1), description: "Records of this level and worse." }),
  parameter("host", text("Records from this host.")),
  parameter("contains", text("The message holds this, in any letter case.")),
  parameter("attribute.NAME", text("Records with this value of the attribute NAME; several names may be given.")),
  parameter("since", text("Begins with what was stored since then: a duration such as `10m`, or an RFC 3339 time.")),
  parameter("limit_per_second", {
    type: "integer",
    minimum: 1,
    description: "Records a second at most; the rest is skipped, and that is said.",
  }),
];
const ABOUT =
  'Needs a key with the scope "query". One JSON object a line; with `Accept: text/event-stream` one event each, and the header `Last-Event-ID` goes on where an earlier tail stood. ' +
  "Lines that are no records have one member: `skipped`, `gap`, `error` or `end`; empty lines mean nothing.";

/** The document with the live tail in it. */
export function withTail(document: OpenApi): OpenApi {
  const refusals = Map.groupBy(ERROR_CODES, (code) => ERRORS[code].status);
  const responses = Object.fromEntries([
    ["200", { description: "The records, without end.", content: { "application/x-ndjson": {}, "text/event-stream": {} } }],
    ...[...refusals]
      .sort(([a], [b]) => a - b)
      .map(([status, codes]) => {
        const description = codes.map((code) => `\`${code}\`: ${ERRORS[code].help}`).join(" ");
        return [
          String(status),
          { description, content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } } },
        ] as const;
      }),
  ]);
  const get = {
    operationId: "tail",
    summary: "A tenant's records as they are acknowledged.",
    description: ABOUT,
    parameters: PARAMETERS,
    responses,
  };
  return { ...document, paths: { ...document.paths, "/v1/tail": { get } } };
}

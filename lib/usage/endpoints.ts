// The endpoints of usage as data: lib/usage/api.ts serves them, the OpenAPI document describes them.

import { z } from "zod";
import { endpoint } from "../base/endpoint.ts";
import { isTenant } from "../event/envelope.ts";
import { QUOTAS } from "./quotas.ts";
import { REPLAYED } from "./what-if.ts";

const WHAT_IF_DAYS_MAX = 31;
const WHAT_IF_DAYS_DEFAULT = 7;

const time = z.iso.datetime({ offset: true });
const tenant = z
  .string()
  .refine(isTenant, "is no name of a tenant")
  .optional()
  .describe("Another tenant than the key's own: operators only.");
const zone = z
  .string()
  .max(64)
  .transform((name, context) => {
    const known = canonicalZone(name);
    if (known !== undefined) return known;
    context.addIssue({ code: "custom", message: "is no time zone of the IANA database, such as Europe/Berlin" });
    return z.NEVER;
  })
  .optional()
  .describe("Time zone in which days and months begin; that of the tenant's quotas when it is absent, UTC when they have none.");

/** A time zone by the name that every engine knows it by; undefined when there is none of that name. */
export function canonicalZone(name: string): string | undefined {
  if (!/^[A-Za-z]/.test(name)) return undefined;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone;
  } catch {
    return undefined;
  }
}

const count = z.number().describe("A whole number.");
const figures = { records: count, bytes: count };
const about = {
  tenant: z.string(),
  zone: z.string(),
  since: z.string(),
  until: z.string(),
  complete: z.boolean().describe("False when not every table could be asked: the figures may be too small then."),
  note: z.string().nullable().describe("Why it is not complete."),
};
const row = z.object({
  from: z.string(),
  to: z.string(),
  service: z.string().optional().describe("With `group=service`."),
  ...figures,
  closed: z
    .boolean()
    .describe("Whether the time is over and everything observed in it is counted; only what comes very late changes it then."),
});
const quota = z.object({
  quota: z.enum(QUOTAS),
  limit: count,
  used: count,
  left: count,
  window: z.object({ from: z.string(), to: z.string() }),
  ends: z
    .string()
    .nullable()
    .describe(
      "When it is used up at the pace of the last 24 hours or of the window so far, whichever is faster; null when not before the window turns.",
    ),
});
const answer = z.object({
  ...about,
  by: z.enum(["hour", "day", "month"]),
  closed_until: z.string().nullable(),
  rows: z.array(row),
  totals: z.object(figures),
  quotas: z.array(quota),
});

const replayed = z.object({
  limit: z.enum(REPLAYED),
  value: count,
  ...figures,
  at_least: z.boolean().describe("Whether peaks within a quarter of an hour, which are not known, may put more over it."),
  days: z
    .array(
      z.object({
        day: z.string().describe("When the day began."),
        hit: z
          .string()
          .nullable()
          .describe("The quarter of an hour in which the limit was first passed; null when it had been passed before."),
        ...figures,
      }),
    )
    .describe("Days on which something was over the limit."),
});
const whatIfShape = z.object({ ...about, limits: z.array(replayed) });
const amount = z.coerce.number().pipe(z.int().min(1).max(Number.MAX_SAFE_INTEGER)).optional();

export const USAGE_ENDPOINTS = {
  usage: endpoint({
    id: "usage",
    method: "get",
    path: "/v1/usage",
    summary: "What a tenant sent, by hour, day or month of a time zone, and what is left of its quotas.",
    access: "query|admin",
    query: z.strictObject({
      tenant,
      by: z.enum(["hour", "day", "month"]).default("day"),
      zone,
      group: z.enum(["service"]).optional().describe("`service` tells services apart."),
      since: time.optional().describe("Rounded down to a quarter of an hour. When absent: 24 hours, 31 days or 12 months back."),
      until: time.optional().describe("Now when absent."),
    }),
    answer,
    errors: ["not_found", "store_unavailable", "too_many_requests"],
  }),
  whatIf: endpoint({
    id: "usageWhatIf",
    method: "get",
    path: "/v1/usage/what-if",
    summary: "What limits would have done to the usage of the last days: each by itself, over quarters of an hour.",
    access: "query|admin",
    query: z.strictObject({
      tenant,
      zone,
      days: z.coerce.number().pipe(z.int().min(1).max(WHAT_IF_DAYS_MAX)).default(WHAT_IF_DAYS_DEFAULT),
      records_per_day: amount,
      bytes_per_day: amount,
      records_per_month: amount,
      bytes_per_month: amount,
      ingest_records_per_second: amount,
      ingest_bytes_per_second: amount.describe("Replayed over the bytes that usage counts, which are fewer than those of bodies."),
    }),
    answer: whatIfShape,
    errors: ["not_found", "store_unavailable", "too_many_requests"],
  }),
} as const;

export type UsageQuery = z.infer<NonNullable<(typeof USAGE_ENDPOINTS)["usage"]["query"]>>;
export type WhatIfQuery = z.infer<NonNullable<(typeof USAGE_ENDPOINTS)["whatIf"]["query"]>>;
export type UsageAnswer = z.infer<typeof answer>;
export type WhatIfAnswer = z.infer<typeof whatIfShape>;

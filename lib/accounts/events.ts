// What happened to the accounts: the messages of `control.accounts.<tenant>`, version 1.
//
// Promises: a message holds every event of one command, so that a command takes effect whole or not at all; it says who did
// it, when and from where; every text in it is bounded and free of control characters; a key's secret is never in it, only
// its SHA-256. Messages are never changed: what a later version adds is passed over by this one.

import { z } from "zod";
import { SCOPES } from "../base/principal.ts";
import { isBatchId } from "../event/ids.ts";

const TEXT_CHARS_MAX = 200;
/** C0, DEL, C1, line ends, marks that turn the reading direction, half pairs: nothing that a name needs. */
const HARMFUL = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/u;

/** A text of one line for people. */
export const line = (charsMax = TEXT_CHARS_MAX) =>
  z
    .string()
    .max(charsMax)
    .refine((text) => !HARMFUL.test(text), "must not hold control characters, line ends or marks that turn the reading direction")
    .describe(`One line of at most ${charsMax} characters, without control characters.`);

/** Names that mean something else: dead letters of no tenant. */
const RESERVED: ReadonlySet<string> = new Set(["unknown"]);

export const tenantName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, "must be lower-case letters, digits, - or _, at most 63")
  .refine((name) => !RESERVED.has(name), "is a reserved name")
  .describe("Name of a tenant: lower-case letters, digits, - or _, at most 63; never used again after the tenant was deleted.");
export const keyId = z
  .string()
  .regex(/^[a-z2-7]{16}$/, "is not the id of a key")
  .describe("Id of a key: 16 characters of a-z and 2-7.");
export const time = z.iso.datetime({ offset: true });
export const scopes = z
  .array(z.enum(SCOPES))
  .min(1)
  .max(SCOPES.length)
  .refine((list) => new Set(list).size === list.length, "names a scope twice");

const amount = z.int().min(1).max(Number.MAX_SAFE_INTEGER).nullable();
/** What a tenant's key may be held to besides its tenant; null removes a limit. */
export const keyLimits = z.strictObject({
  ingest_requests_per_second: amount.optional(),
  ingest_records_per_second: amount.optional(),
  /** Of bodies, after decompression. */
  ingest_bytes_per_second: amount.optional(),
  /** Seconds' worth of the three above that may come at once. */
  burst_seconds: amount.optional(),
  queries_at_once: amount.optional(),
  tails_at_once: amount.optional(),
});
/** Per tenant and installation; null removes a limit, and then the installation's default counts. */
export const limits = z.strictObject({
  ...keyLimits.shape,
  query_seconds: amount.optional(),
  /** Rows that one query may read. */
  query_rows: amount.optional(),
  query_memory_bytes: amount.optional(),
  attributes_per_record: amount.optional(),
  /** Different names of attributes in a UTC day. */
  attribute_names_per_day: amount.optional(),
});
/** What becomes of records beyond a quota: refused, accepted and let go, or kept aside until the quota turns or is raised. */
export const OVER_QUOTA = ["reject", "drop", "defer"] as const;
const timeZone = z
  .string()
  .max(64)
  .refine(isTimeZone, "is no time zone of the IANA database, such as Europe/Berlin")
  .describe("Name of a time zone of the IANA database: when days and months of quotas begin. UTC when there is none.");
/** Per tenant, in days and months of its time zone; null removes a quota. */
export const quotas = z.strictObject({
  bytes_per_day: amount.optional(),
  bytes_per_month: amount.optional(),
  records_per_day: amount.optional(),
  records_per_month: amount.optional(),
  over_quota: z.enum(OVER_QUOTA).nullable().optional(),
  time_zone: timeZone.nullable().optional(),
});
function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone !== "" && /^[A-Za-z]/.test(name);
  } catch {
    return false;
  }
}

const RETENTION_DAYS_MAX = 36_500;
export const retentionDays = z
  .int()
  .min(0)
  .max(RETENTION_DAYS_MAX)
  .nullable()
  .describe("Days that records stay searchable; 0 is for ever, null what the installation says (RELOG_RETENTION_DAYS).");

const reason = line();
const key = keyId;
const expires = time.nullable();

const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
/** What a list of a certificate names at most. */
const NAMED_MAX = 10_000;
/** What was removed of a deleted tenant from one site, and what is left of it elsewhere until it ages out. */
export const certificate = z.object({
  site: z.string().max(64),
  /** When the tenant was deleted, and where in CONTROL that is said. */
  deleted: time,
  tombstone: count,
  /** When nothing of it was found any more. */
  verified: time,
  tables: z
    .array(z.object({ table: z.string().max(128), rows: count }))
    .max(NAMED_MAX)
    .describe("Every table that held or could hold its records, and rows removed; each was counted again and holds none."),
  rows: count,
  first_timestamp: z.string().max(40).nullable().describe("Of the records removed, as all times here RFC 3339."),
  last_timestamp: z.string().max(40).nullable(),
  dead_letters: count,
  deferred: count,
  registers: z.array(z.string().max(200)).max(NAMED_MAX).describe("Keys that named the tenant and were removed."),
  remains: z
    .object({
      streams: z.array(
        z.object({
          stream: z.string().max(64),
          messages: count,
          first_seq: count,
          last_seq: count,
          until: z.string().nullable().describe("When the last of them ages out; null when only the stream's size lets it go."),
        }),
      ),
      archive: z
        .object({ segments: count, messages: count, records: count, bytes: count })
        .nullable()
        .describe(
          "Sealed segments that hold records of it beside others', as long as the object store keeps them; null where there is no archive.",
        ),
      kept: z.array(z.string().max(200)).describe("What is kept on purpose."),
    })
    .describe("What is still stored, and cannot be asked for, rebuilt or brought back."),
});
export type Certificate = Readonly<z.infer<typeof certificate>>;

const accountEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("tenant_created"), title: line() }),
  z.object({ type: z.literal("tenant_renamed"), title: line() }),
  z.object({ type: z.literal("tenant_disabled"), reason }),
  z.object({ type: z.literal("tenant_enabled") }),
  z.object({ type: z.literal("tenant_deleted"), reason }),
  z.object({
    type: z.literal("key_created"),
    key,
    hash: z.string().regex(/^[0-9a-f]{64}$/),
    label: line(),
    scopes,
    expires,
    operator: z.boolean(),
    /** The key that this one takes over from. */
    replaces: key.nullable(),
  }),
  z.object({ type: z.literal("key_changed"), key, label: line().optional(), expires: expires.optional() }),
  z.object({ type: z.literal("key_revoked"), key, reason }),
  z.object({ type: z.literal("key_limited"), key, limits: keyLimits }),
  z.object({ type: z.literal("limits_changed"), limits }),
  z.object({ type: z.literal("quotas_changed"), quotas }),
  z.object({ type: z.literal("retention_changed"), retention_days: retentionDays }),
  z.object({ type: z.literal("tenant_erased"), certificate }),
]);
export type AccountEvent = Readonly<z.infer<typeof accountEvent>>;
export type KeyLimits = Readonly<z.infer<typeof keyLimits>>;
export type Limits = Readonly<z.infer<typeof limits>>;
export type Quotas = Readonly<z.infer<typeof quotas>>;

export const ACCOUNTS_VERSION = 1;

const accountMessage = z.object({
  version: z.literal(ACCOUNTS_VERSION),
  id: z.string().refine(isBatchId),
  time,
  tenant: tenantName,
  who: z.string(),
  where: z.string(),
  events: z.array(z.looseObject({ type: z.string() })).min(1),
});

/** What one command did. */
export interface AccountMessage {
  readonly version: typeof ACCOUNTS_VERSION;
  /** A ULID. */
  readonly id: string;
  /** RFC 3339. */
  readonly time: string;
  readonly tenant: string;
  readonly who: string;
  readonly where: string;
  readonly events: readonly AccountEvent[];
}

/**
 * A message as the stream holds it. Events that this version does not know are left out and counted.
 * @returns undefined when it is no message of accounts
 */
export function readAccountMessage(value: unknown): { readonly message: AccountMessage; readonly unknown: number } | undefined {
  const head = accountMessage.safeParse(value);
  if (!head.success) return undefined;
  const events = head.data.events.flatMap((one) => {
    const event = accountEvent.safeParse(one);
    return event.success ? [event.data] : [];
  });
  return { message: { ...head.data, events }, unknown: head.data.events.length - events.length };
}

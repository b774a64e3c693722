// The audit log: what was done to the accounts and to the installation, newest first, from the stream CONTROL itself.
//
// Promises: nothing is kept beside the stream; a call reads SCANNED_MAX messages at most and says where to go on; hashes of
// keys are left out; a message that nobody understands is listed as such.

import type { StoredMessage } from "../event/envelope.ts";

export interface AuditEntry {
  readonly seq: number;
  readonly id: string;
  /** RFC 3339. */
  readonly time: string;
  readonly what: string;
  /** Null when it is about no tenant, or about several. */
  readonly tenant: string | null;
  readonly who: string;
  readonly where: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface AuditFilter {
  readonly tenant?: string | undefined;
  /** Part of who did it. */
  readonly who?: string | undefined;
  /** The kind of an event, such as key_revoked. */
  readonly what?: string | undefined;
  readonly sinceMs?: number | undefined;
  readonly untilMs?: number | undefined;
  /** Only what is about the accounts and quotas of tenants: operations of the installation are its operators' affair. */
  readonly accountsOnly?: boolean | undefined;
}

export interface AuditPorts {
  readBack(
    before: number | undefined,
    messagesMax: number,
  ): Promise<{
    readonly messages: readonly Pick<StoredMessage, "seq" | "subject" | "payload" | "storedMs">[];
    readonly before: number | undefined;
  }>;
  /** The tenant whose account or quotas a message is about; undefined when it is about neither. */
  tenantOf(subject: string): string | undefined;
}

const WINDOW = 500;
const SCANNED_MAX = 20_000;
const DATA_CHARS_MAX = 4_096;

/** The entries that a filter lets through. @param before a cursor of an earlier call @throws what the ports throw */
export async function readAudit(
  ports: AuditPorts,
  filter: AuditFilter,
  page: { readonly before?: number | undefined; readonly limit: number },
): Promise<{ readonly entries: readonly AuditEntry[]; readonly cursor: number | undefined }> {
  const entries: AuditEntry[] = [];
  let before = page.before;
  for (let scanned = 0; scanned < SCANNED_MAX; scanned += WINDOW) {
    const read = await ports.readBack(before, WINDOW);
    for (const message of read.messages) {
      // The events of one message stay together: a cursor is a sequence.
      if (entries.length >= page.limit) return { entries, cursor: message.seq + 1 };
      if (filter.sinceMs !== undefined && message.storedMs < filter.sinceMs - CLOCKS_MS) return { entries, cursor: undefined };
      const about = ports.tenantOf(message.subject);
      if (about === undefined && filter.accountsOnly === true) continue;
      entries.push(...entriesOf(message, about).filter((entry) => matches(filter, entry)));
    }
    before = read.before;
    if (before === undefined) return { entries, cursor: undefined };
  }
  return { entries, cursor: before };
}

/** How far the clocks of writers and of the stream may be apart when a reading backwards may stop at a time. */
const CLOCKS_MS = 600_000;

function matches({ tenant, who, what, sinceMs, untilMs }: AuditFilter, entry: AuditEntry): boolean {
  const at = Date.parse(entry.time);
  return (
    (tenant === undefined || entry.tenant === tenant) &&
    (who === undefined || entry.who.includes(who)) &&
    (what === undefined || entry.what === what) &&
    (sinceMs === undefined || at >= sinceMs) &&
    (untilMs === undefined || at < untilMs)
  );
}

type Message = Pick<StoredMessage, "seq" | "payload" | "storedMs">;

function entriesOf({ seq, payload, storedMs }: Message, tenant: string | undefined): AuditEntry[] {
  const stored = new Date(storedMs).toISOString();
  const value = objectOf(payload);
  if (value === undefined) {
    const data = { bytes: payload.length };
    return [{ seq, id: "", time: stored, what: "unreadable", tenant: tenant ?? null, who: "", where: "", data }];
  }
  const { id, time, who, where, what, tenant: named, events, version: _, ...rest } = value;
  const head = { seq, id: textOf(id), time: timeOf(time) ?? stored, who: textOf(who), where: textOf(where) };
  if (tenant === undefined || !Array.isArray(events)) {
    const about = tenant ?? (typeof named === "string" ? named : null);
    return [{ ...head, what: textOf(what) || "unreadable", tenant: about, data: shortened(rest) }];
  }
  return events.map((event: unknown) => {
    const { type, hash: __, ...data } = typeof event === "object" && event !== null ? (event as Record<string, unknown>) : {};
    return { ...head, what: textOf(type) || "unreadable", tenant, data: shortened(data) };
  });
}

/** Facts as they are, or without their lists when they are many: the dropping of dead letters names hundreds. */
function shortened(data: Record<string, unknown>): Record<string, unknown> {
  if (JSON.stringify(data).length <= DATA_CHARS_MAX) return data;
  const counted = Object.entries(data).map(([name, value]) => [name, Array.isArray(value) ? { count: value.length } : value]);
  const short = Object.fromEntries(counted) as Record<string, unknown>;
  return JSON.stringify(short).length <= DATA_CHARS_MAX ? short : { left_out: Object.keys(data).length };
}

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");
const timeOf = (value: unknown): string | undefined => (typeof value === "string" && !Number.isNaN(Date.parse(value)) ? value : undefined);

function objectOf(payload: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(payload).toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

// Accounts without NATS: a stream in memory with the compare-and-set that CONTROL has.

import type { AccountPorts } from "./accounts.ts";
import { accountCommands } from "./accounts.ts";
import type { AuditPorts } from "./audit.ts";
import { Directory } from "./directory.ts";
import type { AccountMessage } from "./events.ts";

const PREFIX = "control.accounts.";
export const T0 = Date.parse("2026-01-02T03:04:05.000Z");

/** A stream that several directories may share. */
export class MemoryLog {
  readonly messages: { readonly seq: number; readonly subject: string; readonly payload: Uint8Array; readonly storedMs: number }[] = [];

  append(subject: string, value: unknown, lastSeq?: number): "stored" | "refused" {
    const last = this.messages.findLast((message) => message.subject === subject)?.seq ?? 0;
    if (lastSeq !== undefined && last !== lastSeq) return "refused";
    const payload = Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
    this.messages.push({ seq: this.messages.length + 1, subject, payload, storedMs: T0 });
    return "stored";
  }

  /** Everything after what the directory knows. */
  into(directory: Directory): void {
    for (const { seq, subject, payload } of this.messages.slice(directory.position))
      if (subject.startsWith(PREFIX)) directory.apply(seq, subject.slice(PREFIX.length), payload);
  }

  readonly audit: AuditPorts = {
    tenantOf: (subject) => /^control\.(?:accounts|quotas)\.([^.]+)/.exec(subject)?.[1],
    readBack: async (before, messagesMax) => {
      const older = this.messages.filter(({ seq }) => before === undefined || seq < before).reverse();
      const messages = older.slice(0, messagesMax);
      return { messages, before: older.length > messagesMax ? messages.at(-1)!.seq : undefined };
    },
  };
}

let ids = 0;
const newId = (): string => `01JGK${String(ids++).padStart(21, "0")}`;

/** One process on a log, with a clock that the test moves. */
export function memoryAccounts(
  log: MemoryLog,
  clock: { ms: number } = { ms: T0 },
  answer: (outcome: "stored" | "refused") => Awaited<ReturnType<AccountPorts["append"]>> = (outcome) => outcome,
) {
  const directory = new Directory({ now: () => clock.ms });
  const ports: AccountPorts = {
    directory,
    refresh: async () => log.into(directory),
    append: async (message: AccountMessage, lastSeq) => answer(log.append(`${PREFIX}${message.tenant}`, message, lastSeq)),
    nowMs: () => clock.ms,
    newId,
  };
  return { directory, clock, ports, run: accountCommands(ports) };
}

// What one process let in, told to the others, so that N gateways are held to one limit.
//
// Promises: each process debits what the others say from its own buckets, so over time all of them together let in what one bucket
// would, and at most one interval's worth a process more. Only owners with limits are told. Messages are bounded; one that is
// lost or malformed is as if that much had not been sent, and malformed ones are counted by whoever asks.

import { z } from "zod";
import type { Amounts, Owner } from "./rates.ts";

/** How often a process tells: an overshoot lasts as long. */
export const TELL_EVERY_MS = 200;
const OWNERS_MAX = 2_000;

const amount = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const message = z.object({
  from: z.string(),
  used: z.array(z.tuple([z.string(), z.string(), amount, amount, amount])).max(OWNERS_MAX),
});

interface RatesPort {
  takeUsed(): readonly (Owner & { readonly amounts: Amounts })[];
  debit(owner: Owner, amounts: Amounts): void;
}

/** The messages that say what was let in since the last time. @param from names this process */
export function usageMessages(rates: RatesPort, from: string): string[] {
  const used = rates.takeUsed().map(({ tenant, key, amounts }) => [tenant, key, ...amounts]);
  const messages: string[] = [];
  for (let i = 0; i < used.length; i += OWNERS_MAX) messages.push(JSON.stringify({ from, used: used.slice(i, i + OWNERS_MAX) }));
  return messages;
}

/** Debits what another process says. @returns false when that is no such message */
export function debitUsage(rates: RatesPort, from: string, text: string): boolean {
  const read = message.safeParse(jsonOf(text));
  if (!read.success) return false;
  if (read.data.from === from) return true;
  for (const [tenant, key, requests, records, bytes] of read.data.used) rates.debit({ tenant, key }, [requests, records, bytes]);
  return true;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

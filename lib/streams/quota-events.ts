// Warnings about quotas in CONTROL, each once: `control.quotas.<tenant>.<quota>.<start of its window>.<percent>`.

import type { NatsConnection } from "nats";
import { NatsError } from "nats";
import { JETSTREAM } from "./codes.ts";
import { accountOf } from "./control.ts";

const QUOTAS = "control.quotas.";
const TIMEOUT_MS = 5_000;

/** The subject of a warning. @param fromMs when the window began */
export function warningSubject(tenant: string, quota: string, fromMs: number, percent: number): string {
  const from = new Date(fromMs).toISOString().replace(/\.\d+/, "").replace(/[-:]/g, "");
  return `${QUOTAS}${tenant}.${quota}.${from}.${percent}`;
}

/** The tenant whose account or quotas a message of CONTROL is about; undefined when it is about neither. */
export function accountOrQuotaOf(subject: string): string | undefined {
  return subject.startsWith(QUOTAS) ? subject.slice(QUOTAS.length).split(".")[0] : accountOf(subject);
}

/** Appends the first message of a subject. Returns false when there is one. @throws NatsError; it may be stored all the same */
export async function appendFirst(nc: NatsConnection, subject: string, message: object): Promise<boolean> {
  try {
    await nc.jetstream({ timeout: TIMEOUT_MS }).publish(subject, JSON.stringify(message), { expect: { lastSubjectSequence: 0 } });
    return true;
  } catch (error) {
    if (error instanceof NatsError && error.api_error?.err_code === JETSTREAM.wrongLastSequence) return false;
    throw error;
  }
}

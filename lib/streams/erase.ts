// What streams and registers hold of one tenant: counting it, and removing it where it may be removed.
//
// Promises: a stream that is not there holds nothing; LOGS and CONTROL are only looked at: they let nothing be removed.

import type { NatsConnection } from "nats";
import { NatsError } from "nats";
import { STREAMS } from "../event/envelope.ts";
import { forget, keysOf } from "./cas.ts";

/** Neither stream nor message. */
const NO_STREAM = 404;
const TIMEOUT_MS = 5_000;

/** Messages on a subject, which may have wildcards; 0 when there is no such stream. @throws NatsError */
export async function countSubject(nc: NatsConnection, stream: string, subject: string): Promise<number> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  try {
    const { state } = await manager.streams.info(stream, { subjects_filter: subject });
    return Object.values(state.subjects ?? {}).reduce((sum, messages) => sum + messages, 0);
  } catch (error) {
    if (error instanceof NatsError && error.api_error?.code === NO_STREAM) return 0;
    throw error;
  }
}

/** Removes every message on a subject; nothing happens when there is no such stream. @throws NatsError; what was removed is then unknown */
export async function purgeSubject(nc: NatsConnection, stream: string, subject: string): Promise<void> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  try {
    await manager.streams.purge(stream, { filter: subject });
  } catch (error) {
    if (!(error instanceof NatsError && error.api_error?.code === NO_STREAM)) throw error;
  }
}

/** Removes every register whose key a pattern matches. Returns their keys. @throws NatsError */
export async function forgetMatching(nc: NatsConnection, patterns: readonly string[]): Promise<string[]> {
  const keys: string[] = [];
  for (const pattern of patterns) {
    for (const key of await keysOf(nc, pattern)) {
      await forget(nc, key);
      keys.push(key);
    }
  }
  return keys.sort();
}

/** What a LOGS stream still holds of a tenant. */
export interface Remaining {
  readonly stream: string;
  readonly messages: number;
  readonly firstSeq: number;
  readonly lastSeq: number;
  /** When the last one was stored, milliseconds since the epoch. */
  readonly lastMs: number;
  /** How long the stream keeps a message, in milliseconds; 0 when only its size says so. */
  readonly ageMaxMs: number;
}

/** The first message of a subject that a stream still holds. Source: NATS ADR-31, direct get. */
async function firstOf(nc: NatsConnection, stream: string, subject: string): Promise<number | undefined> {
  const answer = await nc.request(`$JS.API.DIRECT.GET.${stream}`, JSON.stringify({ seq: 1, next_by_subj: subject }), {
    timeout: TIMEOUT_MS,
  });
  const seq = Number(answer.headers?.get("Nats-Sequence") || Number.NaN);
  return Number.isSafeInteger(seq) ? seq : undefined;
}

/** Undefined when it holds nothing of it. @throws NatsError */
export async function remainingIn(nc: NatsConnection, shard: number, tenant: string): Promise<Remaining | undefined> {
  const [stream, subject] = [STREAMS.logs(shard), `logs.${shard}.${tenant}`];
  const messages = await countSubject(nc, stream, subject);
  if (messages === 0) return undefined;
  const manager = await nc.jetstreamManager({ checkAPI: false });
  try {
    const { config } = await manager.streams.info(stream);
    const firstSeq = await firstOf(nc, stream, subject);
    const last = await manager.streams.getMessage(stream, { last_by_subj: subject });
    const ageMaxMs = config.max_age / 1e6;
    return { stream, messages, firstSeq: firstSeq ?? last.seq, lastSeq: last.seq, lastMs: last.time.getTime(), ageMaxMs };
  } catch (error) {
    // The last of them aged out meanwhile.
    if (error instanceof NatsError && error.api_error?.code === NO_STREAM) return undefined;
    throw error;
  }
}

// Appending a batch to its stream.
//
// Promises: returns only with JetStream's acknowledgement; an unknown outcome is tried again under the same
// de-duplication id until the deadline, which is far inside the window; what cannot be stored is a RelogError that says
// whether a retry helps.

import type { NatsConnection } from "nats";
import { ErrorCode, headers, NatsError } from "nats";
import type { Values } from "../base/config.ts";
import { duration } from "../base/config.ts";
import { messageOf, RelogError } from "../base/errors.ts";
import { backoffMs, sleep } from "../base/loop.ts";
import { SUBJECTS } from "../event/envelope.ts";
import { JETSTREAM } from "./codes.ts";

export const appendSettings = {
  appendTimeoutMs: duration(
    "RELOG_APPEND_TIMEOUT",
    "20s",
    "how long one message is tried; longer than a leader election, far shorter than the window",
  ),
  ackTimeoutMs: duration("RELOG_ACK_TIMEOUT", "5s", "wait for one acknowledgement before the message is sent again under the same id"),
};

/** A sentence when the settings are wrong, for readSettings. */
export function appendFault({ appendTimeoutMs, dedupeWindowMs }: { appendTimeoutMs: number; dedupeWindowMs: number }): string | undefined {
  if (appendTimeoutMs * 4 <= dedupeWindowMs) return undefined;
  return "RELOG_APPEND_TIMEOUT must be at most a quarter of RELOG_DEDUPE_WINDOW, or a retry could be stored twice";
}

const RETRY_FIRST_MS = 20;
const RETRY_MAX_MS = 1_000;
const FULL_RETRY_S = 60;

export interface Appended {
  readonly stream: string;
  readonly seq: number;
  /** True when the stream had a message with this id already; `seq` is that one's. */
  readonly duplicate: boolean;
}

export interface Message {
  readonly shard: number;
  readonly tenant: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly payload: Uint8Array;
  /** True for the stream DEFERRED, where records over a quota wait. */
  readonly deferred?: boolean | undefined;
}

/** @throws RelogError quota_exceeded (DEFERRED is full), stream_full, stream_unavailable, outcome_unknown, too_many_bytes */
export type Append = (message: Message) => Promise<Appended>;

interface PubAck {
  stream?: string;
  seq?: number;
  duplicate?: boolean;
  error?: { code: number; err_code?: number; description?: string };
}

/** @param report told after each message what keeps the shard's stream from taking more; undefined when nothing does */
export function appender(
  nc: NatsConnection,
  settings: Values<typeof appendSettings>,
  report: (shard: number, why: string | undefined) => void = () => undefined,
): Append {
  return async (message) => {
    if (message.deferred) return await append(message).catch(throwDeferred);
    try {
      const appended = await append(message);
      report(message.shard, undefined);
      return appended;
    } catch (error) {
      report(message.shard, messageOf(error));
      throw error;
    }
  };

  async function append(message: Message): Promise<Appended> {
    const header = headers();
    for (const [name, value] of message.headers) header.append(name, value);
    const subject = (message.deferred ? SUBJECTS.deferred : SUBJECTS.logs)(message.shard, message.tenant);
    const deadline = performance.now() + settings.appendTimeoutMs;
    /** Whether some attempt may have been stored without our knowing. */
    let unknown = false;
    for (let attempt = 0; ; attempt++) {
      let why: string;
      const ack = await nc
        .request(subject, message.payload, { headers: header, timeout: settings.ackTimeoutMs, noMux: false })
        .then((reply) => reply.json<PubAck>())
        .catch((error: Error) => error);
      if (ack instanceof Error) {
        const nobody = ack instanceof NatsError && ack.code === ErrorCode.NoResponders;
        why = nobody ? "no stream leader answers" : ack.message;
        unknown ||= !nobody;
      } else {
        if (ack.error === undefined) return { stream: ack.stream!, seq: ack.seq!, duplicate: ack.duplicate === true };
        why = ack.error.description ?? `JetStream error ${ack.error.code}`;
        throwIfFinal(ack.error, why, unknown);
      }
      if (nc.isClosed() || performance.now() >= deadline) {
        const text = `${why} (tried for ${settings.appendTimeoutMs} ms, RELOG_APPEND_TIMEOUT)`;
        throw new RelogError(unknown ? "outcome_unknown" : "stream_unavailable", text, { retryAfterS: 2 });
      }
      await sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS));
    }
  }
}

/** Its quota is used up and there is no room to wait: for the tenant that is the quota's end. */
function throwDeferred(error: unknown): never {
  if (!(error instanceof RelogError) || error.code !== "stream_full") throw error;
  const text = "the quota is used up, and DEFERRED, where records would wait, is full (RELOG_DEFERRED_BYTES_MAX)";
  throw new RelogError("quota_exceeded", text, { cause: error, retryAfterS: FULL_RETRY_S });
}

/** @throws RelogError when trying again soon will not help, Error when the message should never have been made */
function throwIfFinal(error: NonNullable<PubAck["error"]>, text: string, unknown: boolean): void {
  // An earlier attempt may be stored all the same.
  if (unknown && error.err_code !== JETSTREAM.messageTooLarge) return;
  switch (error.err_code) {
    case JETSTREAM.storeFailed:
    case JETSTREAM.insufficientResources:
    case JETSTREAM.storageExceeded:
      throw new RelogError("stream_full", `the stream takes no more: ${text}`, { retryAfterS: 10 });
    case JETSTREAM.ingestQueueFull:
      throw new RelogError("too_many_bytes", `the stream's ingest queue is full: ${text}`, { retryAfterS: 1 });
    case JETSTREAM.messageTooLarge:
      throw new Error(`the stream refuses a message of our making: ${text}`);
    default:
      // No leader, a duplicate that is still in flight (10158), and the like: the same message may be taken soon.
      return;
  }
}

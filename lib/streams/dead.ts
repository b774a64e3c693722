// Parking messages in DEAD_LETTERS.

import type { NatsConnection } from "nats";
import { headers } from "nats";
import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS, STREAMS, SUBJECTS } from "../event/envelope.ts";

export const DEAD_HEADERS = {
  reason: "Relog-Dead-Reason",
  detail: "Relog-Dead-Detail",
  stream: "Relog-Dead-Stream",
  sequence: "Relog-Dead-Sequence",
  lines: "Relog-Dead-Lines",
  site: "Relog-Dead-Site",
  generation: "Relog-Dead-Generation",
} as const;

const DETAIL_CHARS_MAX = 500;
const ACK_TIMEOUT_MS = 5_000;

export interface ParkRequest {
  readonly message: StoredMessage;
  readonly tenant: string;
  readonly reason: string;
  readonly detail: string;
  /** Replaces the message's payload when only some of its records are concerned. */
  readonly frame: Uint8Array | undefined;
  readonly lines: string;
}

/**
 * Parks messages of one shard's stream. The same message is parked once within the stream's de-duplication window, however often it is asked.
 * @throws NatsError when it is not acknowledged
 */
export function parker(nc: NatsConnection, site: string, generation: number, shard: number): (request: ParkRequest) => Promise<void> {
  const jetstream = nc.jetstream({ timeout: ACK_TIMEOUT_MS });
  const stream = STREAMS.logs(shard);
  return async ({ message, tenant, reason, detail, frame, lines }) => {
    const header = headers();
    for (const name of Object.values(HEADERS)) {
      const value = message.header(name);
      if (value !== "" && name !== HEADERS.messageId) header.set(name, value);
    }
    header.set(DEAD_HEADERS.reason, reason);
    header.set(DEAD_HEADERS.detail, detail.replace(/[^\x20-\x7e]+/g, " ").slice(0, DETAIL_CHARS_MAX));
    header.set(DEAD_HEADERS.stream, stream);
    header.set(DEAD_HEADERS.sequence, String(message.seq));
    header.set(DEAD_HEADERS.lines, lines.slice(0, DETAIL_CHARS_MAX));
    header.set(DEAD_HEADERS.site, site);
    header.set(DEAD_HEADERS.generation, String(generation));
    const msgID = `${site}:${generation}:${stream}:${message.seq}:${lines.slice(0, 64)}`;
    const token = /^[A-Za-z0-9_-]+$/.test(tenant) ? tenant : "unknown";
    await jetstream.publish(SUBJECTS.dead(shard, token), frame ?? message.payload, { headers: header, msgID });
  };
}

// Single messages of a stream, asked of its leader: what it does not hold, the stream does not hold.

import type { NatsConnection } from "nats";
import type { StoredMessage } from "../event/envelope.ts";
import { JETSTREAM } from "./codes.ts";

interface RawAnswer {
  readonly message?: {
    readonly seq: number;
    readonly subject: string;
    readonly time: string;
    readonly hdrs?: string;
    readonly data?: string;
  };
  readonly error?: { readonly code: number; readonly err_code?: number; readonly description?: string };
}

/** Which message: the one with a sequence, or the first at or behind it whose subject matches. */
export type WhichMessage = { readonly seq: number } | { readonly seq: number; readonly next_by_subj: string };

const NOT_FOUND = 404;
const HEADER_LINE = /^([^:]+):(.*)$/;

/**
 * The message; undefined when the stream does not hold it.
 * @throws NatsError when nobody answers within `timeoutMs`, Error when the answer is another one, also that there is no such stream
 */
export async function askLeaderFor(
  nc: NatsConnection,
  stream: string,
  which: WhichMessage,
  timeoutMs: number,
): Promise<StoredMessage | undefined> {
  const reply = await nc.request(`$JS.API.STREAM.MSG.GET.${stream}`, JSON.stringify(which), { timeout: timeoutMs });
  const { message, error } = reply.json<RawAnswer>();
  if (message === undefined) {
    const gone = error?.err_code === JETSTREAM.noMessage || error?.code === NOT_FOUND;
    if (gone && error?.err_code !== JETSTREAM.streamNotFound) return undefined;
    throw new Error(`${stream} answered ${error?.code} ${error?.description}`);
  }
  const { seq, subject, time, hdrs, data } = message;
  const pairs = pairsOf(hdrs);
  const header = (name: string): string => pairs.find(([key]) => key === name)?.[1] ?? "";
  return { seq, subject, payload: Buffer.from(data ?? "", "base64"), header, pairs: () => pairs, storedMs: Date.parse(time) };
}

/** Headers as they are on the wire, in base64. Source: NATS ADR-4. */
function pairsOf(encoded: string | undefined): [name: string, value: string][] {
  const lines = Buffer.from(encoded ?? "", "base64")
    .toString("utf8")
    .split("\r\n")
    .slice(1);
  return lines.flatMap((line) => {
    const match = HEADER_LINE.exec(line);
    return match === null ? [] : [[match[1]!, match[2]!.trim()] as [string, string]];
  });
}

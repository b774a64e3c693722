// Reading a live tail from the query service, as `relog tail` does.
//
// Promises: a connection that breaks, falls silent or is ended by a leaving process is made again where it stood, so that
// nothing is lost or shown twice as far as the streams hold it; what a retry cannot mend is thrown; one event at most is kept.

import type { ErrorCode } from "../base/errors.ts";
import { ERRORS, messageOf, RelogError } from "../base/errors.ts";
import { backoffMs, sleep } from "../base/loop.ts";

export interface TailEvent {
  /** "message" for a record; else what the tail says of itself. */
  readonly event: string;
  /** JSON on one line. */
  readonly data: string;
}

/** Longer than several of the service's keep-alives. */
const SILENCE_MS = 60_000;
const EVENT_CHARS_MAX = 64 * 2 ** 20;
const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 10_000;

/**
 * The events of a tail until the signal aborts.
 * @param url of the query service @param onWait told when the connection is made again, with the reason
 * @throws RelogError the service's refusal, Error when it cannot be reached at the beginning
 */
export async function* readTail(
  url: string,
  key: string,
  parameters: URLSearchParams,
  onWait: (why: string) => void,
  signal: AbortSignal,
): AsyncGenerator<TailEvent, void, undefined> {
  let cursor: string | undefined;
  const address = `${url.replace(/\/+$/, "")}/v1/tail?${parameters}`;
  for (let attempt = 0; !signal.aborted; attempt++) {
    let why = "the query service ended the tail";
    try {
      for await (const { id, ...event } of connection(address, key, cursor, signal)) {
        cursor = id ?? cursor;
        attempt = 0;
        if (event.data === undefined) continue;
        if (event.event === "error") throw new Final(refusal(event.data));
        if (event.event === "end") break;
        yield { event: event.event, data: event.data };
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Final) throw error.cause;
      const code = error instanceof RelogError ? error.entry.remedy : "retry";
      if (cursor === undefined || code !== "retry") throw error;
      why = messageOf(error);
    }
    if (signal.aborted) return;
    onWait(why);
    await sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS), signal);
  }
}

/** Carries what no retry mends out of the loop. */
class Final extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
  }
}

interface RawEvent {
  readonly event: string;
  readonly data: string | undefined;
  readonly id: string | undefined;
}

async function* connection(
  address: string,
  key: string,
  cursor: string | undefined,
  stop: AbortSignal,
): AsyncGenerator<RawEvent, void, undefined> {
  const silent = new AbortController();
  const timer = setTimeout(() => silent.abort(new Error(`nothing came for ${SILENCE_MS} ms`)), SILENCE_MS);
  const signal = AbortSignal.any([stop, silent.signal]);
  const headers = { authorization: `Bearer ${key}`, accept: "text/event-stream", ...(cursor && { "last-event-id": cursor }) };
  try {
    const answer = await fetch(address, { headers, signal }).catch((cause: Error) => {
      const reason = messageOf(cause.cause ?? cause);
      throw new Error(`the query service at ${new URL(address).origin} does not answer (${reason})`, { cause });
    });
    if (!answer.ok) throw refusal(await answer.text());
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of answer.body!) {
      timer.refresh();
      text += decoder.decode(chunk, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop()!;
      if (text.length > EVENT_CHARS_MAX) throw new Error(`an event is longer than ${EVENT_CHARS_MAX} characters`);
      for (const part of parts) yield parsed(part);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** The fields of one event. Source: WHATWG HTML, 9.2.6, as far as the service uses it. */
function parsed(part: string): RawEvent {
  let [event, data, id] = ["message", undefined as string | undefined, undefined as string | undefined];
  for (const line of part.split("\n")) {
    const colon = line.indexOf(": ");
    const value = line.slice(colon + 2);
    switch (line.slice(0, colon)) {
      case "event":
        event = value;
        break;
      case "data":
        data = value;
        break;
      case "id":
        id = value;
        break;
      default:
        // A comment, or the pause before a retry, which we choose ourselves.
        break;
    }
  }
  return { event, data, id };
}

/** The error of the contract's body. */
function refusal(body: string): Error {
  try {
    const { error } = JSON.parse(body) as { error: { code: string; message: string } };
    if (Object.hasOwn(ERRORS, error.code)) return new RelogError(error.code as ErrorCode, error.message);
  } catch {
    // Not from the query service, such as a proxy's page.
  }
  return new Error(`the query service answered ${JSON.stringify(body.slice(0, 200))}`);
}

// Answering requests on a subject as one of a queue group.

import type { NatsConnection } from "nats";
import { headers } from "nats";
import type { Logger } from "../base/telemetry.ts";
import { senderOf } from "./sender.ts";

export interface NatsRequest {
  readonly subject: string;
  readonly payload: Uint8Array;
  header(name: string): string | undefined;
  /** Where the answer goes; undefined for a plain publish: nobody waits for one. */
  readonly reply: string | undefined;
  /** The name of the producer's connection, when its server vouches for it (sender.ts). */
  readonly sender: string | undefined;
}

/**
 * Serves `subject`; each request runs on its own, bounds are the handler's. Disposing takes no more and lets running ones finish.
 * The answer is published with the services' rights: a handler that must not write to a request's reply returns undefined.
 * @param vouched whether producers are in an account of their own, so that the server writes who they are
 */
export function serveQueue(
  nc: NatsConnection,
  subject: string,
  queue: string,
  vouched: boolean,
  log: Logger,
  handle: (request: NatsRequest) => Promise<Record<string, unknown> | undefined>,
): AsyncDisposable {
  const running = new Set<Promise<void>>();
  const subscription = nc.subscribe(subject, {
    queue,
    callback(error, message) {
      if (error) {
        log.error({ err: error, subject }, "the ingest subscription failed");
        return;
      }
      const task = handle({
        subject: message.subject,
        payload: message.data,
        header: (name) => headerOf(message.headers, name),
        reply: message.reply || undefined,
        sender: vouched ? senderOf(message.headers) : undefined,
      })
        .then((answer) => {
          if (answer !== undefined) message.respond(JSON.stringify(answer), { headers: headers() });
        })
        .catch((thrown: unknown) => log.error({ err: thrown, subject: message.subject }, "a NATS request was not answered"))
        .finally(() => running.delete(task));
      running.add(task);
    },
  });
  return {
    async [Symbol.asyncDispose]() {
      await subscription.drain();
      await Promise.all(running);
    },
  };
}

/** Header names on NATS are case sensitive, those of HTTP are not; producers use either. */
function headerOf(header: import("nats").MsgHdrs | undefined, name: string): string | undefined {
  if (header === undefined) return undefined;
  for (const key of header.keys()) if (key.toLowerCase() === name.toLowerCase()) return header.get(key);
  return undefined;
}

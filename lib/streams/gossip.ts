// Telling the other processes something that is worth nothing a moment later.
//
// Promises: a message reaches whoever listens now, or nobody; nothing is stored. Subjects are the services' own (`relog.>`): no
// stream captures them, and producers may neither publish nor listen there (ops/nats/accounts.conf).

import type { NatsConnection } from "nats";
import type { Logger } from "../base/telemetry.ts";

export interface Gossip extends Disposable {
  tell(text: string): void;
}

/** @param take gets what is told, our own messages too */
export function gossip(nc: NatsConnection, subject: `relog.${string}`, log: Logger, take: (text: string) => void): Gossip {
  const subscription = nc.subscribe(subject, {
    callback(error, message) {
      if (error) log.error({ err: error, subject }, "the subscription failed");
      else take(message.string());
    },
  });
  return {
    tell(text) {
      if (!nc.isClosed()) nc.publish(subject, text);
    },
    [Symbol.dispose]: () => subscription.unsubscribe(),
  };
}

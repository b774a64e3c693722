// The envelope of one stored message.

import type { NatsConnection } from "nats";
import type { Envelope } from "../event/envelope.ts";
import { readEnvelope } from "../event/envelope.ts";

/** Asks the stream's leader. @throws NatsError when there is no such message, Error when it is no batch */
export async function envelopeAt(nc: NatsConnection, stream: string, seq: number): Promise<Envelope> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  const message = await manager.streams.getMessage(stream, { seq });
  const envelope = readEnvelope((name) => message.header.get(name));
  if ("fault" in envelope) throw new Error(`message ${seq} of ${stream} is no batch: ${envelope.fault}`);
  return envelope;
}

// Whether a stream remembers a de-duplication id, asked without storing anything.
//
// JetStream looks for the id before it judges a roll-up: a message that asks for one that does not exist is answered with the
// first message's sequence when its id is known, and refused when it is not, whatever the stream allows. With expectations
// instead, the order differs between one replica and three (docs/adr/0019-over-quota.md).

import type { Msg, NatsConnection } from "nats";
import { ErrorCode, headers, NatsError } from "nats";
import { sleep } from "../base/loop.ts";
import { HEADERS } from "../event/envelope.ts";
import { JETSTREAM } from "./codes.ts";

const ACK_TIMEOUT_MS = 5_000;
const NO_LEADER_RETRY_MS = 50;
const NO_SUCH_ROLLUP = "none";

/** The sequence of the message with this id, within the stream's window; undefined when there is none. @throws NatsError, Error */
export async function knownId(nc: NatsConnection, subject: string, messageId: string): Promise<number | undefined> {
  const header = headers();
  header.set(HEADERS.messageId, messageId);
  header.set("Nats-Rollup", NO_SUCH_ROLLUP);
  const reply = await answerOf(() => nc.request(subject, undefined, { headers: header, timeout: ACK_TIMEOUT_MS }));
  const { seq, error } = reply.json<{ seq?: number; error?: { err_code?: number; description?: string } }>();
  if (error === undefined) return seq!;
  if (error.err_code === JETSTREAM.rollupFailed) return undefined;
  throw new Error(`${subject} does not say whether it knows an id: ${error.description}`);
}

/** While a leader is elected nobody listens at the stream's subjects: that is waited for as an answer would be. */
async function answerOf(ask: () => Promise<Msg>): Promise<Msg> {
  for (const deadline = performance.now() + ACK_TIMEOUT_MS; ; await sleep(NO_LEADER_RETRY_MS)) {
    try {
      return await ask();
    } catch (error) {
      const nobody = error instanceof NatsError && error.code === ErrorCode.NoResponders;
      if (!nobody || performance.now() >= deadline) throw error;
    }
  }
}

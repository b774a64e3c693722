// Answers of the gateway go to whoever sent the message, and nowhere else.
//
// Promises: an answer is published with the gateway's rights. The reply of a producer in an account of its own is the server's, and
// leads back into that account alone. Any other reply outside the inboxes of the subject's tenant is never written to: it could be a
// stream's subject, a bucket's or another tenant's. Its message is not stored either: the producer could not learn that it was, and
// would send it again. Such messages are counted, and said now and then.

import { seldom } from "../../base/seldom.ts";
import type { Telemetry } from "../../base/telemetry.ts";
import type { NativeRequest } from "./serve.ts";
import { tenantIn } from "./serve.ts";

/** Whether a reply is heard by this tenant alone. */
export type OwnReply = (reply: string, tenant: string) => boolean;

const REPLY_CHARS_LOGGED = 100;
const SAID_EVERY_MS = 1_000;

/** @returns `handle`, and undefined for a message whose reply is not its tenant's */
export function ownRepliesOnly<T>(
  isOwnReply: OwnReply,
  { counter, log }: Telemetry,
  handle: (request: NativeRequest) => Promise<T>,
): (request: NativeRequest) => Promise<T | undefined> {
  const refused = counter("relog_nats_replies_refused_total", "Messages not taken: their reply was to no inbox of their tenant.");
  const say = seldom(SAID_EVERY_MS, () => performance.now());
  return async (request) => {
    const { subject, reply, sender } = request;
    if (reply === undefined || sender !== undefined || isOwnReply(reply, tenantIn(subject))) return await handle(request);
    refused.inc();
    const said = say();
    if (said !== undefined)
      log.warn(
        { subject, reply: reply.slice(0, REPLY_CHARS_LOGGED), unsaid: said.since },
        "a NATS message was not taken: its reply is to no inbox of its tenant",
      );
    return undefined;
  };
}

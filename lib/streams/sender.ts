// Who published a message that crossed from the producers' account.
//
// Promises: the name is the one under which the connection was authorized. nats-server writes it into the header and takes away what
// a producer wrote there; only of this very spelling, so no other one counts. It does so for an import with `share: true`, and there
// only: where producers are in the services' own account, the header is theirs. Source: nats-server, server/client.go
// (processServiceImport), server/events.go (ClientInfo).

import type { MsgHdrs } from "nats";

/** Where the producers are; the services and all streams are in RELOG (ops/nats/accounts.conf). */
export const PRODUCERS_ACCOUNT = "PRODUCERS";
const HEADER = "Nats-Request-Info";

/** The name of the connection; undefined when the message came from no producer's account. */
export function senderOf(headers: MsgHdrs | undefined): string | undefined {
  const text = headers?.get(HEADER) ?? "";
  if (text === "") return undefined;
  try {
    const { acc, user } = JSON.parse(text) as { readonly acc?: unknown; readonly user?: unknown };
    return acc === PRODUCERS_ACCOUNT && typeof user === "string" && user !== "" ? user : undefined;
  } catch {
    return undefined;
  }
}

// The connections that nats-server has, listed and ended by a user of its system account.
//
// Promises: every server that answers in time is asked, page by page, within bounds; ending one that is gone already is no
// fault. Source: nats-server, server/events.go (`$SYS.REQ.SERVER.PING.CONNZ`, `$SYS.REQ.SERVER.<id>.KICK`).

import type { Msg, NatsConnection } from "nats";
import { createInbox } from "nats";
import { INBOX_PREFIX } from "../event/inbox.ts";

/** A connection of a client that has a name. */
export interface Connection {
  readonly server: string;
  readonly id: number;
  /** The name that it was authorized under. */
  readonly user: string;
}

const PAGE = 1_024;
const PAGES_MAX = 100;
/** Servers that have not answered the first question by then count as gone; the next look asks them again. */
const GATHER_MS = 400;
const ANSWER_MS = 2_000;

interface Page {
  readonly server?: { readonly id?: unknown };
  readonly data?: { readonly connections?: readonly { readonly cid?: unknown; readonly authorized_user?: unknown }[] };
}

const question = (user: string | undefined, offset: number): string =>
  JSON.stringify({ auth: true, limit: PAGE, offset, ...(user === undefined ? {} : { user }) });

interface ServerPage {
  readonly server: string;
  readonly rows: number;
  readonly connections: readonly Connection[];
}

function readPage(message: Msg): ServerPage | undefined {
  const { server, data } = message.json<Page>();
  if (typeof server?.id !== "string" || data === undefined) return undefined;
  const id = server.id;
  const rows = data.connections ?? [];
  const connections = rows.flatMap(({ cid, authorized_user: user }) =>
    typeof cid === "number" && typeof user === "string" ? [{ server: id, id: cid, user }] : [],
  );
  return { server: id, rows: rows.length, connections };
}

/**
 * Shows every connection, or those of one user, to `visit`: a server's own as soon as it has listed them all.
 * @param nc of a user of the system account @throws what `visit` throws, and when no server answers
 */
export async function visitConnections(
  nc: NatsConnection,
  user: string | undefined,
  visit: (connections: readonly Connection[]) => Promise<void>,
): Promise<void> {
  const reply = createInbox(INBOX_PREFIX);
  const gathered = Promise.withResolvers<void>();
  const visits: Promise<{ readonly failed?: unknown }>[] = [];
  const subscription = nc.subscribe(reply, {
    callback(error, message) {
      const first = error === null ? readPage(message) : undefined;
      if (error !== null) gathered.reject(error);
      if (first === undefined) return;
      const visited = whole(nc, user, first).then(visit);
      visits.push(
        visited.then(
          () => ({}),
          (failed: unknown) => ({ failed }),
        ),
      );
    },
  });
  const timer = setTimeout(gathered.resolve, GATHER_MS);
  try {
    nc.publish("$SYS.REQ.SERVER.PING.CONNZ", question(user, 0), { reply });
    await gathered.promise;
  } finally {
    clearTimeout(timer);
    subscription.unsubscribe();
  }
  if (visits.length === 0) throw new Error("no nats-server lists its connections");
  for (const { failed } of await Promise.all(visits)) if (failed !== undefined) throw failed;
}

/** The connections of a server from its first page on. */
async function whole(nc: NatsConnection, user: string | undefined, first: ServerPage): Promise<Connection[]> {
  const found = [...first.connections];
  for (let [last, pages] = [first.rows, 1]; last === PAGE && pages < PAGES_MAX; pages++) {
    const subject = `$SYS.REQ.SERVER.${first.server}.CONNZ`;
    const next = readPage(await nc.request(subject, question(user, pages * PAGE), { timeout: ANSWER_MS }));
    found.push(...(next?.connections ?? []));
    last = next?.rows ?? 0;
  }
  return found;
}

/** Ends a connection; its client may come again, and is asked who it is. */
export async function endConnection(nc: NatsConnection, { server, id }: Connection): Promise<void> {
  await nc.request(`$SYS.REQ.SERVER.${server}.KICK`, JSON.stringify({ cid: id }), { timeout: ANSWER_MS });
}

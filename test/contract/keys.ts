// Tenants and keys made straight on the stream, and connections of producers with them.

import type { ConnectionOptions, NatsConnection } from "nats";
import { connect } from "nats";
import { accountPorts, readerInto } from "../../cmd/parts/accounts.ts";
import type { Run } from "../../lib/accounts/accounts.ts";
import { accountCommands } from "../../lib/accounts/accounts.ts";
import { Directory } from "../../lib/accounts/directory.ts";
import type { NewKey } from "../../lib/accounts/keys.ts";
import { newKey } from "../../lib/accounts/keys.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Scope } from "../../lib/base/principal.ts";
import type { Stack } from "../../lib/devstack/stack.ts";

export const ME = { who: "test", where: "test", operator: true };

/** A connection as the services have it. */
export async function internal({ natsUrl, natsUser, natsPassword }: Stack): Promise<NatsConnection> {
  const options = { servers: natsUrl.split(","), user: natsUser, pass: natsPassword, inboxPrefix: "_INBOX_RELOG" };
  return await connect({ ...options, noAsyncTraces: true, maxReconnectAttempts: -1, reconnectTimeWait: 100 });
}

/** A producer's connection, with the inbox of its tenant. */
export async function producer(stack: Stack, tenant: string, key: string, options: ConnectionOptions = {}): Promise<NatsConnection> {
  return await connect({ servers: stack.natsUrl.split(","), token: key, inboxPrefix: `_INBOX_${tenant}`, noAsyncTraces: true, ...options });
}

export interface Keys {
  readonly run: Run;
  tenant(name: string): Promise<void>;
  key(tenant: string, scopes?: readonly Scope[], expiresMs?: number | null): Promise<NewKey>;
}

/** @param nc of the services */
export async function keysOn(nc: NatsConnection): Promise<Keys> {
  const directory = new Directory(systemClock);
  const reader = readerInto(nc, directory);
  await reader.toEnd();
  const run = accountCommands(accountPorts(nc, directory, reader));
  return {
    run,
    async tenant(name) {
      await run(name, { type: "create_tenant", title: "" }, ME);
    },
    async key(tenant, scopes = ["ingest"], expiresMs = null) {
      const made = newKey();
      await run(tenant, { type: "create_key", key: made.id, hash: made.hash, label: "", scopes, expiresMs, operator: false }, ME);
      return made;
    },
  };
}

// API keys on NATS: who may connect, whose subject is whose, and the end of connections whose key has ended.

import type { Home } from "../../lib/accounts/authenticate.ts";
import { Guard } from "../../lib/accounts/guard.ts";
import type { NatsOutcome } from "../../lib/accounts/nats.ts";
import { NatsAccess, natsDecision } from "../../lib/accounts/nats.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Values } from "../../lib/base/config.ts";
import { RelogError } from "../../lib/base/errors.ts";
import type { Health } from "../../lib/base/health.ts";
import { sleep } from "../../lib/base/loop.ts";
import { seldom } from "../../lib/base/seldom.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import { isOwnReply } from "../../lib/event/inbox.ts";
import type { OwnReply } from "../../lib/ingest/native/replies.ts";
import type { SubjectCaller } from "../../lib/ingest/native/serve.ts";
import type { calloutSettings } from "../../lib/streams/auth-callout.ts";
import { serveAuthCallout } from "../../lib/streams/auth-callout.ts";
import type { NatsConnection, natsSettings } from "../../lib/streams/connection.ts";
import { connectSystem } from "../../lib/streams/connection.ts";
import type { Connection } from "../../lib/streams/connections.ts";
import { endConnection, visitConnections } from "../../lib/streams/connections.ts";
import type { Accounts } from "./accounts.ts";

type Settings = Values<typeof natsSettings> & Values<typeof calloutSettings> & Home;

const SAID_EVERY_MS = 1_000;
const FINISH_MS = 2_000;

export interface NatsKeys extends AsyncDisposable {
  /** Whether the server tells who a producer is. */
  readonly vouched: boolean;
  readonly callerOf: SubjectCaller;
  readonly isOwnReply: OwnReply;
}

/** For a gateway whose accounts are read: until then another one answers, or the server's timeout does. */
export function openNatsKeys(settings: Settings, nc: NatsConnection, accounts: Accounts, health: Health, telemetry: Telemetry): NatsKeys {
  const access = new NatsAccess(settings, accounts.directory, systemClock.now);
  // Where the server lets only a tenant's keys publish to its subject, every tenant's messages are taken; elsewhere a subject is
  // no credential, and only the installation's own is taken, at its word.
  const vouched = settings.calloutSeed !== "";
  const running = new AsyncDisposableStack();
  if (vouched) {
    // In this order: nobody is let in any more when the guard ends.
    running.use(guard(settings, accounts, access, health, telemetry));
    running.use(callout(settings, nc, accounts, access, telemetry));
  }
  return {
    vouched,
    callerOf: (tenant, sender) => (vouched || tenant === settings.tenant ? access.caller(tenant, sender) : undefined),
    isOwnReply: (reply, tenant) => isOwnReply(reply, tenant, settings.tenant),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

function callout(settings: Settings, nc: NatsConnection, accounts: Accounts, access: NatsAccess, telemetry: Telemetry): AsyncDisposable {
  const { log } = telemetry;
  const connections = telemetry.counter("relog_nats_connections_total", "Producers that wanted to connect to NATS, by outcome.", [
    "outcome",
  ]);
  const sayRefused = seldom(SAID_EVERY_MS, systemClock.monotonicMs);
  const sayDropped = seldom(SAID_EVERY_MS, systemClock.monotonicMs);
  const told = (outcome: NatsOutcome, keyId: string | undefined, host: string): void => {
    connections.inc({ outcome });
    const said = outcome === "allowed" ? undefined : sayRefused();
    if (said !== undefined) log.info({ outcome, keyId, host, unsaid: said.since }, "a connection to NATS was refused");
  };
  const dropped = (why: string): void => {
    connections.inc({ outcome: "not_answered" });
    const said = sayDropped();
    if (said !== undefined) log.warn({ why, unsaid: said.since }, "nats-server's question about a connection was not answered");
  };
  return serveAuthCallout(nc, settings.calloutSeed, natsDecision(accounts.authenticate, access, told), dropped, log, systemClock.now);
}

function guard(settings: Settings, accounts: Accounts, access: NatsAccess, health: Health, telemetry: Telemetry): AsyncDisposable {
  const { log } = telemetry;
  const kicked = telemetry.counter("relog_nats_kicked_total", "Open connections to NATS that were ended because their key had.");
  let system: Promise<NatsConnection> | undefined;
  const connected = async (): Promise<NatsConnection> => {
    system ??= connectSystem(settings, settings, "gateway");
    try {
      const nc = await system;
      // A client whose login is refused twice gives up.
      if (nc.isClosed()) throw new RelogError("stream_unavailable", "the connection was closed");
      return nc;
    } catch (error) {
      system = undefined;
      throw error;
    }
  };
  const ports = {
    visit: async (user: string | undefined, visit: (found: readonly Connection[]) => Promise<void>) =>
      await visitConnections(await connected(), user, visit),
    end: async (connection: Connection) => await endConnection(await connected(), connection),
    used(keyId: string) {
      if (accounts.directory.isAlive(keyId)) accounts.lastUse.note(keyId);
    },
    ended(tenant: string, keyId: string, connections: number) {
      kicked.inc(connections);
      log.info({ tenant, keyId, connections }, "connections to NATS were ended: their key has");
    },
    state(why: string | undefined) {
      health.warn("nats-keys", why && `NATS connections of ended keys cannot be looked for as ${settings.systemUser}: ${why}`);
    },
  };
  const stop = new AbortController();
  const run = new Guard(access, ports, systemClock).run(accounts.directory, stop.signal);
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.race([run, sleep(FINISH_MS)]);
      await (await system?.catch(() => undefined))?.close();
    },
  };
}

// The connection to NATS that one process has.

import { readFileSync } from "node:fs";
import type { ConnectionOptions, NatsConnection } from "nats";
import { connect, Events, NatsError } from "nats";
import type { Values } from "../base/config.ts";
import { duration, secret, text } from "../base/config.ts";
import { messageOf, RelogError } from "../base/errors.ts";
import type { Health } from "../base/health.ts";
import type { Logger } from "../base/telemetry.ts";
import { INBOX_PREFIX } from "../event/inbox.ts";

export type { NatsConnection } from "nats";

export const natsSettings = {
  natsUrl: text("NATS_URL", "nats://127.0.0.1:4222", "servers, comma separated; any of a cluster leads to all"),
  natsUser: text("NATS_USER", "", "the internal services' user; empty connects without one"),
  natsPassword: secret("NATS_PASSWORD", "", "its password; file:/path reads it from a file"),
  caFile: text("NATS_CA_FILE", "", "PEM file of the authority that signed the servers' certificates; empty means no TLS"),
  reconnectWaitMs: duration("NATS_RECONNECT_WAIT", "250ms", "pause between two attempts at the same server"),
  requestTimeoutMs: duration("NATS_REQUEST_TIMEOUT", "5s", "longest wait for one answer; a leader election takes about as long"),
};

function optionsOf(settings: Values<typeof natsSettings>, name: string): ConnectionOptions {
  return {
    servers: settings.natsUrl.split(",").map((server) => server.trim()),
    name: `relog-${name}`,
    inboxPrefix: INBOX_PREFIX,
    ...(settings.natsUser === "" ? {} : { user: settings.natsUser, pass: settings.natsPassword }),
    ...(settings.caFile === "" ? {} : { tls: { ca: readFileSync(settings.caFile, "utf8") } }),
    maxReconnectAttempts: -1,
    reconnectTimeWait: settings.reconnectWaitMs,
    reconnectJitter: settings.reconnectWaitMs,
    timeout: settings.requestTimeoutMs,
    pingInterval: 5_000,
    maxPingOut: 2,
    waitOnFirstConnect: true,
    ignoreClusterUpdates: false,
    noAsyncTraces: true,
  };
}

const FIRST_CONNECT_MS = 3_000;

/**
 * For a command that someone waits for: every server is tried once; later it reconnects for ever, as a service does.
 * @throws RelogError stream_unavailable that names the servers
 */
export async function connectNatsNow(settings: Values<typeof natsSettings>, name: string): Promise<NatsConnection> {
  const options = { ...optionsOf(settings, name), waitOnFirstConnect: false, timeout: FIRST_CONNECT_MS };
  try {
    return await connect(options);
  } catch (cause) {
    const refused = cause instanceof NatsError && (cause.isAuthError() || cause.isAuthTimeout() || cause.isPermissionError());
    const why = refused ? "refuses the user; check NATS_USER and NATS_PASSWORD" : "does not answer";
    throw new RelogError("stream_unavailable", `NATS at ${settings.natsUrl.replace(/[^/,]*@/g, "")} ${why} (${messageOf(cause)})`, {
      cause,
    });
  }
}

/** As a user of the system account: for looking at connections and ending them. It reconnects for ever, too. */
export async function connectSystem(
  settings: Values<typeof natsSettings>,
  system: { readonly systemUser: string; readonly systemPassword: string },
  name: string,
): Promise<NatsConnection> {
  const { systemUser: natsUser, systemPassword: natsPassword } = system;
  return await connect({ ...optionsOf({ ...settings, natsUser, natsPassword }, `${name}-system`), waitOnFirstConnect: false });
}

/**
 * Connects and stays connected: reconnects for ever, and keeps `health` told.
 * Waits for the first connection too, so that a process may start before NATS does.
 */
export async function connectNats(
  settings: Values<typeof natsSettings>,
  name: string,
  log: Logger,
  health: Health,
): Promise<NatsConnection> {
  const subject = "nats";
  health.notReady(subject, `connecting to ${settings.natsUrl}`);
  const nc = await connect(optionsOf(settings, name));
  health.notReady(subject, undefined);
  (async () => {
    for await (const status of nc.status()) {
      if (status.type === Events.Disconnect) health.notReady(subject, "disconnected from NATS");
      else if (status.type === Events.Reconnect) health.notReady(subject, undefined);
      if (status.type === Events.Error) log.warn({ data: status.data }, "NATS reports an error");
      else if (status.type === Events.Disconnect || status.type === Events.Reconnect)
        log.info({ server: status.data }, `NATS ${status.type}`);
    }
  })().catch((error: unknown) => log.error({ err: error }, "the NATS status feed ended"));
  return nc;
}

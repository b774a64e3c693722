// How live tails are put together.

import type { Hono } from "hono";
import { systemClock } from "../../lib/base/clock.ts";
import type { Values } from "../../lib/base/config.ts";
import type { Principal } from "../../lib/base/principal.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { tailSource } from "../../lib/streams/tail.ts";
import { tailApi } from "../../lib/tail/api.ts";
import type { tailSettings } from "../../lib/tail/limits.ts";
import type { Slots } from "../../lib/tail/slots.ts";
import { processSlots, slotsOfAll } from "../../lib/tail/slots.ts";
import type { Accounts } from "./accounts.ts";

/** The bootstrap key's id; see lib/accounts/authenticate.ts. */
const BOOTSTRAP = "env";

/** Whether a credential that authenticated once still would. */
function alive({ directory }: Accounts, { tenant, keyId }: Principal): boolean {
  if (keyId !== BOOTSTRAP) return directory.isAlive(keyId);
  const { status } = directory.known(tenant).account;
  return status !== "disabled" && status !== "deleted";
}

/** @param limits of tenants and keys, besides those of the process */
export function tails(
  accounts: Accounts,
  values: Values<typeof tailSettings> & { readonly shards: number },
  connected: () => NatsConnection,
  telemetry: Telemetry,
  leaving: AbortSignal,
  ...limits: readonly Slots[]
): Hono {
  const ports = {
    authenticate: accounts.authenticate,
    source: tailSource(connected, values.shards),
    alive: (principal: Principal) => alive(accounts, principal),
    onChange: (listener: (tenant: string) => void) => accounts.directory.onChange(listener),
    slots: slotsOfAll(processSlots(values), ...limits),
    clock: systemClock,
    leaving,
  };
  return tailApi(ports, values, telemetry);
}

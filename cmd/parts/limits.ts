// How tenants' limits are put together: a gateway's buckets and names, what the gateways tell each other, a query service's slots.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Directory } from "../../lib/accounts/directory.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { messageOf } from "../../lib/base/errors.ts";
import type { Health } from "../../lib/base/health.ts";
import { every } from "../../lib/base/loop.ts";
import type { Principal } from "../../lib/base/principal.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import type { NamesOfDay, NamesPorts } from "../../lib/limits/names.ts";
import { AttributeNames } from "../../lib/limits/names.ts";
import { Rates } from "../../lib/limits/rates.ts";
import { Slots } from "../../lib/limits/slots.ts";
import { debitUsage, TELL_EVERY_MS, usageMessages } from "../../lib/limits/usage.ts";
import type { TenantLimitDefaults } from "../../lib/limits/values.ts";
import type { QueryTenancy } from "../../lib/query/limits.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { gossip } from "../../lib/streams/gossip.ts";

const USAGE_SUBJECT = "relog.used.limits";
const NAMES_SUBJECT = "relog.used.names";
const SWEEP_EVERY_MS = 60_000;
const MALFORMED_HELP = "messages of other processes' usage that could not be read";

const processName = (): string => `${hostname()}/${process.pid}/${randomUUID()}`;

/** Where the names of a tenant's attributes are remembered. */
export const namesKey = (tenant: string): string => `names.${tenant}`;

function namesPorts(nc: NatsConnection, tell: NamesPorts["tell"]): NamesPorts {
  const seat = (tenant: string) => register<NamesOfDay>(nc, namesKey(tenant));
  return {
    read: (tenant) => seat(tenant).read(),
    write: (tenant, value, revision) => seat(tenant).write(value, revision),
    tell,
  };
}

/** The limits of what comes in, as a gateway acts on them. */
export interface GatewayLimits extends AsyncDisposable {
  readonly rates: Rates;
  readonly names: AttributeNames;
}

/** Tells other gateways and listens to them until it is disposed; then what is left is told and written. */
export function openGatewayLimits(
  nc: NatsConnection,
  directory: Pick<Directory, "limitsOf">,
  defaults: TenantLimitDefaults,
  health: Health,
  { log, counter, gauge }: Telemetry,
): GatewayLimits {
  const lookup = (tenant: string, keyId: string) => directory.limitsOf(tenant, keyId);
  const from = processName();
  const rates = new Rates(lookup, defaults, systemClock.monotonicMs);
  const malformed = counter("relog_limits_malformed_total", MALFORMED_HELP);
  gauge("relog_limits_owners", "tenants and keys with buckets in memory", [], (one) => one.set(rates.size));
  const names = new AttributeNames(
    lookup,
    defaults,
    namesPorts(nc, (tenant) => namesTold.tell(`${from} ${tenant}`)),
    systemClock,
    from,
    (why) => health.warn("attribute names", why === undefined ? undefined : messageOf(why)),
  );
  const namesTold = gossip(nc, NAMES_SUBJECT, log, (text) => {
    const [by, tenant] = text.split(" ");
    if (tenant === undefined) malformed.inc();
    else if (by !== from) names.heard(tenant);
  });
  const told = gossip(nc, USAGE_SUBJECT, log, (text) => {
    if (!debitUsage(rates, from, text)) malformed.inc();
  });
  const tell = (): void => {
    for (const text of usageMessages(rates, from)) told.tell(text);
  };
  const end = new AbortController();
  const running = Promise.all([
    every(TELL_EVERY_MS, async () => tell(), end.signal),
    names.run(end.signal),
    every(SWEEP_EVERY_MS, async () => rates.sweep(), end.signal),
  ]);
  return {
    rates,
    names,
    async [Symbol.asyncDispose]() {
      end.abort();
      await running;
      tell();
      told[Symbol.dispose]();
      namesTold[Symbol.dispose]();
    },
  };
}

/** Slots of one kind, counted over all query services from the moment that `share` has a connection. */
export interface SharedSlots {
  readonly slots: Slots;
  /** Tells the others and listens to them until the signal aborts. */
  share(nc: NatsConnection, signal: AbortSignal): Promise<void>;
}

export function openSlots(
  kind: "queries" | "tails",
  directory: Pick<Directory, "limitsOf">,
  defaults: TenantLimitDefaults,
  { log, counter }: Telemetry,
): SharedSlots {
  const lookup = (tenant: string, keyId: string) => directory.limitsOf(tenant, keyId);
  const slots = new Slots(kind, lookup, defaults, systemClock.monotonicMs);
  const malformed = counter("relog_limits_malformed_total", MALFORMED_HELP);
  return {
    slots,
    async share(nc, signal) {
      const from = processName();
      using told = gossip(nc, `relog.used.${kind}`, log, (text) => {
        if (!slots.hear(from, text)) malformed.inc();
      });
      const tell = async (): Promise<void> => {
        const text = slots.tell(from);
        if (text !== undefined) told.tell(text);
      };
      await every(TELL_EVERY_MS, tell, signal);
    },
  };
}

/** What the query service asks of tenants' limits. */
export function queryTenancy(directory: Pick<Directory, "limitsOf" | "size">, slots: Slots): QueryTenancy {
  return {
    limitsOf: ({ tenant, keyId }: Principal) => directory.limitsOf(tenant, keyId).tenant,
    alone: () => directory.size <= 1,
    slot: (principal) => slots.take(principal),
    presses: (principal) => slots.presses(principal),
    fields: (principal) => slots.fields(principal),
  };
}

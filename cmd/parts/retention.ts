// The retention of a process that is no projector, and the job that lets expired days go.

import { systemClock } from "../../lib/base/clock.ts";
import type { Environment, Values } from "../../lib/base/config.ts";
import { messageOf } from "../../lib/base/errors.ts";
import type { Health } from "../../lib/base/health.ts";
import type { Retention, retentionSettings } from "../../lib/event/retention.ts";
import { adoptRetention, readRetention } from "../../lib/event/retention.ts";
import { dropExpired } from "../../lib/store/generation.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { followGenerations, generationsRegister } from "../../lib/streams/generations.ts";
import type { Projection } from "./projection.ts";

/**
 * Drops what has expired from every generation of the site.
 * @param closeUsage what leaves the tables is in the usage before
 * @throws NatsError, RelogError
 */
export async function sweepExpired({ nc, clickhouse, settings, log }: Projection, closeUsage: () => Promise<void>): Promise<void> {
  await closeUsage();
  const { followed, building } = (await generationsRegister(nc, settings.site).read()).value;
  for (const generation of [...followed, ...(building === null ? [] : [building])]) {
    const dropped = await dropExpired(clickhouse, generation, systemClock.now(), settings.cluster);
    if (dropped.length > 0) log.info({ generation, dropped }, "expired partitions are dropped");
  }
}

/** The policy of the projectors, followed; returns when it is known for the first time. */
export async function followRetention(
  nc: NatsConnection,
  settings: Values<typeof retentionSettings> & { readonly site: string },
  given: Environment,
  health: Health,
  signal: AbortSignal,
): Promise<{ now(): Retention; readonly ended: Promise<void> }> {
  const own = readRetention(settings);
  let now = own;
  const known = Promise.withResolvers<void>();
  const ended = followGenerations(
    nc,
    settings.site,
    ({ retention }) => {
      const adopted = adoptRetention(given, own, retention);
      now = adopted.retention;
      health.warn("retention", adopted.conflict);
      known.resolve();
    },
    (error) => health.warn("generations", error === undefined ? undefined : messageOf(error)),
    signal,
  );
  await Promise.race([known.promise, ended]);
  return { now: () => now, ended };
}

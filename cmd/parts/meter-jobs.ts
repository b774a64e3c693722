// What the scheduler does about usage: snapshots of the meter, by whoever has the lease, and warnings, by all.

import { hostname } from "node:os";
import { systemClock } from "../../lib/base/clock.ts";
import type { Health } from "../../lib/base/health.ts";
import { every } from "../../lib/base/loop.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import type { Job } from "../../lib/scheduler/jobs.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import type { Leased } from "../../lib/streams/lease.ts";
import { acquire } from "../../lib/streams/lease.ts";
import { appendFirst, warningSubject } from "../../lib/streams/quota-events.ts";
import { Keeper } from "../../lib/usage/keep.ts";
import type { QuotaWarning } from "../../lib/usage/warnings.ts";
import { Warnings } from "../../lib/usage/warnings.ts";
import type { Metering } from "./meter.ts";
import { snapshotOf } from "./meter.ts";

const LOOK_MS = 1_000;
/** How long a scheduler that died keeps others from writing snapshots: a restart reads that much more. */
const LEASE_MS = 15_000;

/** @param owner unlike any other process's */
export function meterJobs(metering: Metering, nc: NatsConnection, owner: string, health: Health, telemetry: Telemetry): Job[] {
  const { meter, quotas, calendars, shards } = metering;

  async function snapshots(signal: AbortSignal): Promise<void> {
    const options = { register: register<Leased>(nc, "meter"), clock: systemClock, owner, leaseMs: LEASE_MS };
    const registers = Array.from({ length: shards }, (_, shard) => snapshotOf(nc, shard));
    const on = (shard: number, why: string | undefined): void => health.warn(`snapshot of usage of ${STREAMS.logs(shard)}`, why);
    while (!signal.aborted) {
      await using claim = await acquire<Leased>(options, async () => ({ owner, writes: 0 }), signal);
      if (claim === undefined) return;
      await new Keeper(meter, registers, owner, on).run(AbortSignal.any([signal, claim.lost]));
    }
  }

  const help = "Warnings that a quota is used up to a percentage, appended by this process.";
  const counter = telemetry.counter("relog_quota_warnings_total", help, ["percent"]);
  const ports = {
    append: (warning: QuotaWarning, fromMs: number) =>
      appendFirst(nc, warningSubject(warning.tenant, warning.quota, fromMs, warning.percent), warning),
    appended: ({ percent, tenant, quota, limit, used }: QuotaWarning) => {
      counter.inc({ percent });
      telemetry.log.info({ tenant, quota, limit, used, percent }, "a quota is used up to this percentage");
    },
    where: `scheduler@${hostname()}`,
  };
  const warnings = new Warnings(meter, quotas, calendars, ports, systemClock);
  const look = async (): Promise<void> => {
    if (meter.ready) await warnings.look();
  };

  return [
    { name: "usage-snapshots", run: snapshots },
    { name: "quota-warnings", run: (signal) => every(LOOK_MS, look, signal) },
  ];
}

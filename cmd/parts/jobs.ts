// Everything that the scheduler does in the background; a file of this folder puts each job together.

import type { archiveSettings } from "../../lib/archive/settings.ts";
import { openObjectStore } from "../../lib/archive/settings.ts";
import type { Values } from "../../lib/base/config.ts";
import { every } from "../../lib/base/loop.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import { runErasures } from "../../lib/erasure/run.ts";
import type { RehydratePorts } from "../../lib/rehydrate/ports.ts";
import { dropRehydrations, runRehydrations } from "../../lib/rehydrate/runner.ts";
import { runRebuilds } from "../../lib/replay/runner.ts";
import type { Job } from "../../lib/scheduler/jobs.ts";
import type { appendSettings } from "../../lib/streams/append.ts";
import type { usageSettings } from "../../lib/usage/closing.ts";
import type { Accounts } from "./accounts.ts";
import { archiveJobs } from "./archive.ts";
import { deferredJobs } from "./deferred.ts";
import { erasing } from "./erasure.ts";
import type { Metering } from "./meter.ts";
import { meterJobs } from "./meter-jobs.ts";
import type { Projection, ProjectionValues } from "./projection.ts";
import type { Rebuilding } from "./rebuild.ts";
import { sweepExpired } from "./retention.ts";
import { usageClosing } from "./usage.ts";

/** How often expired partitions are looked for. */
const SWEEP_MS = 10 * 60_000;

type Settings = ProjectionValues & Values<typeof archiveSettings & typeof usageSettings & typeof appendSettings>;

interface Background {
  readonly accounts: Accounts;
  readonly rebuilds: Rebuilding;
  readonly tables: RehydratePorts;
  readonly metering: Metering;
  readonly telemetry: Telemetry;
}

export function backgroundJobs(parts: Projection, settings: Settings, background: Background): Job[] {
  const { nc, library, owner, log, health } = parts;
  const { accounts, rebuilds, tables, metering, telemetry } = background;
  const { control, ports } = rebuilds;
  const objects = openObjectStore(settings);
  const usage = usageClosing(parts, settings.usageEveryMs, telemetry);
  const sweep = () => sweepExpired(parts, usage.closeDaily);
  const erasures = erasing(parts, accounts.directory, accounts.run, usage.close, settings.archiveKeepMs);
  return [
    { name: "rebuild", run: (signal) => runRebuilds(control, ports, owner, log, signal) },
    { name: "rehydrate", run: (signal) => runRehydrations(tables, log, signal) },
    { name: "rehydrate-drop", run: (signal) => dropRehydrations(tables, log, signal) },
    { name: "erasure", run: (signal) => runErasures(erasures, log, signal) },
    ...deferredJobs({ nc, settings, quota: metering.release, owner: `${owner}/deferred`, health, telemetry }),
    { name: "retention", run: (signal) => every(SWEEP_MS, sweep, signal) },
    usage.job,
    ...meterJobs(metering, nc, owner, health, telemetry),
    ...(objects && library ? archiveJobs({ nc, objects, library, settings, owner, health, telemetry }) : []),
  ];
}

// The scheduler: what has to be done in the background, and operators' questions about it.
//
// Any number of them may run: each job takes a lease on what it works at.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { Hono } from "hono";
import { archiveFault, archiveSettings, openObjectStore } from "../lib/archive/settings.ts";
import { systemClock } from "../lib/base/clock.ts";
import { integer } from "../lib/base/config.ts";
import { devKeySettings } from "../lib/base/dev-key.ts";
import { messageOf, RelogError } from "../lib/base/errors.ts";
import { Health, healthRoutes } from "../lib/base/health.ts";
import { httpSettings, serveHttp, withContractErrors } from "../lib/base/http.ts";
import { runProcess, settingsOrExit } from "../lib/base/lifecycle.ts";
import { every } from "../lib/base/loop.ts";
import { followParent } from "../lib/base/parent-pipe.ts";
import { createTelemetry } from "../lib/base/telemetry.ts";
import { deadLettersApi } from "../lib/dead/api.ts";
import { deadLetterMetrics } from "../lib/dead/metrics.ts";
import { runErasures } from "../lib/erasure/run.ts";
import { adoptRetention, readRetention, retentionFault } from "../lib/event/retention.ts";
import { projectorMetrics } from "../lib/projector/metrics.ts";
import { rehydrateApi } from "../lib/rehydrate/api.ts";
import { rehydrateFault, rehydrateSettings } from "../lib/rehydrate/job.ts";
import type { RehydratePorts } from "../lib/rehydrate/ports.ts";
import { dropRehydrations, runRehydrations } from "../lib/rehydrate/runner.ts";
import { replayApi } from "../lib/replay/api.ts";
import { runRebuilds } from "../lib/replay/runner.ts";
import type { Job } from "../lib/scheduler/jobs.ts";
import { runJobs } from "../lib/scheduler/jobs.ts";
import { jobRoutes, operatorApi } from "../lib/scheduler/operator.ts";
import { openClickHouse } from "../lib/store/client.ts";
import { appendSettings } from "../lib/streams/append.ts";
import type { NatsConnection } from "../lib/streams/connection.ts";
import { connectNats } from "../lib/streams/connection.ts";
import { followGenerations, generationsRegister } from "../lib/streams/generations.ts";
import { reconcileUntilDone, topology } from "../lib/streams/topology.ts";
import { usageSettings } from "../lib/usage/closing.ts";
import type { Accounts } from "./parts/accounts.ts";
import { openAccounts } from "./parts/accounts.ts";
import { archiveJobs } from "./parts/archive.ts";
import { archivedOrigin, deadLetters, deadLetterWatch } from "./parts/dead.ts";
import { deferredJobs } from "./parts/deferred.ts";
import { erasing } from "./parts/erasure.ts";
import { Metering } from "./parts/meter.ts";
import { meterJobs } from "./parts/meter-jobs.ts";
import { readPointer } from "./parts/pointer.ts";
import type { Projection } from "./parts/projection.ts";
import { libraryOf, projectionSettings } from "./parts/projection.ts";
import type { Rebuilding } from "./parts/rebuild.ts";
import { rebuilding, rebuildSettings } from "./parts/rebuild.ts";
import { rehydrating } from "./parts/rehydrate.ts";
import { sweepExpired } from "./parts/retention.ts";
import { policyOf } from "./parts/tenants.ts";
import { usageClosing } from "./parts/usage.ts";

const telemetry = createTelemetry("scheduler");
const { log } = telemetry;
const health = new Health();
const settings = settingsOrExit(
  log,
  {
    port: integer("RELOG_SCHEDULER_PORT", "8083", [0, 65_535], "port", "health, metrics and operators' requests of the scheduler"),
    ...httpSettings,
    ...devKeySettings,
    ...projectionSettings,
    ...archiveSettings,
    ...rebuildSettings,
    ...rehydrateSettings,
    ...usageSettings,
    ...appendSettings,
  },
  process.env,
  retentionFault,
  archiveFault,
  rehydrateFault,
);

/** How often expired partitions are looked for. */
const SWEEP_MS = 10 * 60_000;

/** Everything that runs in the background; a file of cmd/parts puts each together. */
function backgroundJobs(
  parts: Projection,
  accounts: Accounts,
  { control, ports }: Rebuilding,
  tables: RehydratePorts,
  metering: Metering,
): Job[] {
  const { nc, library, owner } = parts;
  const objects = openObjectStore(settings);
  const usage = usageClosing(parts, settings.usageEveryMs, telemetry);
  // What leaves the tables is in the usage before.
  const sweep = () => usage.close().then(() => sweepExpired(parts));
  const erasures = erasing(parts, accounts.directory, accounts.run, settings.archiveKeepMs);
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

/** The policy of the projectors, followed; returns when it is known for the first time. */
async function followRetention(nc: NatsConnection, signal: AbortSignal) {
  const own = readRetention(settings);
  let now = own;
  const known = Promise.withResolvers<void>();
  const ended = followGenerations(
    nc,
    settings.site,
    ({ retention }) => {
      const adopted = adoptRetention(process.env, own, retention);
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

/** Lets operators look, but change nothing, while the register of generations is lost. */
function guardRegister({ nc, clickhouse }: Projection): Hono {
  const guard = new Hono();
  guard.use(async (c, next) => {
    const reads = c.req.method === "GET" || c.req.method === "HEAD";
    const lost = reads ? undefined : (await readPointer(generationsRegister(nc, settings.site), clickhouse, settings.site)).lost;
    if (lost !== undefined) throw new RelogError("bad_request", lost);
    await next();
  });
  return guard;
}

await runProcess(log, health, settings.drainMs, async (stack, signal) => {
  if (process.env.RELOG_PARENT_PIPE === "1") followParent(() => process.kill(process.pid, "SIGTERM"));
  health.notReady("start", "starting");
  const healthApp = healthRoutes(health, telemetry.registry);
  const starting = new Hono().route("/", healthApp).all("*", () => {
    throw new RelogError("not_ready", "the scheduler is starting", { retryAfterS: 1 });
  });
  const front = { app: withContractErrors(starting, log) };
  const server = stack.use(await serveHttp(front, settings.listenHost, settings.port, "RELOG_SCHEDULER_PORT"));

  const nc = await connectNats(settings, "scheduler", log, health);
  stack.defer(() => nc.close());
  const clickhouse = stack.use(openClickHouse(settings));
  await reconcileUntilDone(nc, topology(settings), log, health, signal);

  const retention = await followRetention(nc, signal);
  stack.defer(() => retention.ended);
  const accounts = stack.use(openAccounts("scheduler", settings, health, telemetry));
  await accounts.begin(nc, signal);
  const parts: Projection = {
    nc,
    clickhouse,
    settings,
    policy: policyOf(accounts.directory, accounts, { site: settings.site, settings: retention.now }),
    owner: `${hostname()}/${process.pid}/${randomUUID()}`,
    log,
    health,
    metrics: projectorMetrics(telemetry, systemClock.now),
    library: libraryOf(settings),
  };
  const rebuilds = rebuilding(parts, settings);
  const tables = rehydrating(parts, settings);
  const metering = new Metering(accounts, settings.shards, false, health, telemetry);
  const jobs = stack.use(runJobs(backgroundJobs(parts, accounts, rebuilds, tables, metering), health, telemetry));
  await metering.begin(nc, signal);
  const { authenticate } = accounts;
  const dead = deadLettersApi(authenticate, deadLetters(parts, archivedOrigin(parts.library)), () => undefined);
  deadLetterMetrics(telemetry, health, deadLetterWatch(nc));
  const replay = replayApi({ control: rebuilds.control, flip: rebuilds.ports, owner: parts.owner });
  const operators = operatorApi(authenticate, [guardRegister(parts), jobRoutes(() => jobs.report()), replay, rehydrateApi(tables), dead]);
  front.app = withContractErrors(new Hono().route("/", healthApp).route("/", operators), log);
  // Requests under way are answered while NATS and the jobs are still there; closing the server twice is harmless.
  stack.defer(() => server[Symbol.asyncDispose]());
  health.notReady("start", undefined);
});

// The scheduler: what has to be done in the background, and operators' questions about it.
//
// Any number of them may run: each job takes a lease on what it works at.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { Hono } from "hono";
import { archiveFault, archiveSettings } from "../lib/archive/settings.ts";
import { systemClock } from "../lib/base/clock.ts";
import { integer } from "../lib/base/config.ts";
import { devKeySettings } from "../lib/base/dev-key.ts";
import { RelogError } from "../lib/base/errors.ts";
import { Health, healthRoutes } from "../lib/base/health.ts";
import { httpSettings, serveHttp, withContractErrors } from "../lib/base/http.ts";
import { runProcess, settingsOrExit } from "../lib/base/lifecycle.ts";
import { followParent } from "../lib/base/parent-pipe.ts";
import { createTelemetry } from "../lib/base/telemetry.ts";
import { deadLettersApi } from "../lib/dead/api.ts";
import { deadLetterMetrics } from "../lib/dead/metrics.ts";
import { retentionFault } from "../lib/event/retention.ts";
import { projectorMetrics } from "../lib/projector/metrics.ts";
import { rehydrateApi } from "../lib/rehydrate/api.ts";
import { rehydrateFault, rehydrateSettings } from "../lib/rehydrate/job.ts";
import { replayApi } from "../lib/replay/api.ts";
import { runJobs } from "../lib/scheduler/jobs.ts";
import { jobRoutes, operatorApi } from "../lib/scheduler/operator.ts";
import { openClickHouse } from "../lib/store/client.ts";
import { appendFault, appendSettings } from "../lib/streams/append.ts";
import { connectNats } from "../lib/streams/connection.ts";
import { reconcileUntilDone, topology } from "../lib/streams/topology.ts";
import { usageSettings } from "../lib/usage/closing.ts";
import { openAccounts } from "./parts/accounts.ts";
import { archivedOrigin, deadLetters, deadLetterWatch } from "./parts/dead.ts";
import { backgroundJobs } from "./parts/jobs.ts";
import { Metering } from "./parts/meter.ts";
import { guardRegister } from "./parts/pointer.ts";
import type { Projection } from "./parts/projection.ts";
import { libraryOf, projectionSettings } from "./parts/projection.ts";
import { rebuilding, rebuildSettings } from "./parts/rebuild.ts";
import { rehydrating } from "./parts/rehydrate.ts";
import { followRetention } from "./parts/retention.ts";
import { policyOf } from "./parts/tenants.ts";

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
  appendFault,
);

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

  const retention = await followRetention(nc, settings, process.env, health, signal);
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
  const jobs = stack.use(runJobs(backgroundJobs(parts, settings, { accounts, rebuilds, tables, metering, telemetry }), health, telemetry));
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

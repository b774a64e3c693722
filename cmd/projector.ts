// The projector: turns the streams into the tables of one site.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { archiveStoreFault } from "../lib/archive/settings.ts";
import { systemClock } from "../lib/base/clock.ts";
import { integer } from "../lib/base/config.ts";
import { messageOf } from "../lib/base/errors.ts";
import { Health, healthRoutes } from "../lib/base/health.ts";
import { httpSettings, serveHttp } from "../lib/base/http.ts";
import { runProcess, settingsOrExit } from "../lib/base/lifecycle.ts";
import { backoffMs, sleep } from "../lib/base/loop.ts";
import { followParent } from "../lib/base/parent-pipe.ts";
import { createTelemetry } from "../lib/base/telemetry.ts";
import { readRetention, retentionFault } from "../lib/event/retention.ts";
import { Fleet } from "../lib/projector/fleet.ts";
import { projectorMetrics } from "../lib/projector/metrics.ts";
import type { ClickHouse } from "../lib/store/client.ts";
import { openClickHouse } from "../lib/store/client.ts";
import { migrate, readMigrations } from "../lib/store/migrate.ts";
import { connectNats } from "../lib/streams/connection.ts";
import { followGenerations, generationsRegister } from "../lib/streams/generations.ts";
import { reconcileUntilDone, topology } from "../lib/streams/topology.ts";
import { MIGRATIONS } from "./parts/paths.ts";
import { Pointer, readPointer } from "./parts/pointer.ts";
import { libraryOf, projectionSettings, shardWorker } from "./parts/projection.ts";
import { followDirectory, policyOf } from "./parts/tenants.ts";

const telemetry = createTelemetry("projector");
const { log } = telemetry;
const health = new Health();
const settings = settingsOrExit(
  log,
  {
    port: integer("RELOG_PROJECTOR_PORT", "8082", [0, 65535], "port", "health and metrics of the projector"),
    ...httpSettings,
    ...projectionSettings,
  },
  process.env,
  ({ leaseMs }) => (leaseMs < 2_000 ? "RELOG_LEASE must be at least 2s: inserts are fenced a second before the lease ends" : undefined),
  ({ planRecordsEnough, planRecordsMax }) =>
    planRecordsEnough > planRecordsMax ? "RELOG_PLAN_RECORDS_ENOUGH must be at most RELOG_PLAN_RECORDS_MAX" : undefined,
  retentionFault,
  archiveStoreFault,
);

/** How long a plan that is under way may take to end after SIGTERM. */
const FINISH_MS = 3_500;

await runProcess(log, health, settings.drainMs, async (stack, signal) => {
  if (process.env.RELOG_PARENT_PIPE === "1") followParent(() => process.kill(process.pid, "SIGTERM"));
  health.notReady("start", "starting");
  stack.use(await serveHttp({ app: healthRoutes(health, telemetry.registry) }, settings.listenHost, settings.port, "RELOG_PROJECTOR_PORT"));

  const nc = await connectNats(settings, "projector", log, health);
  stack.defer(() => nc.close());
  const clickhouse = stack.use(openClickHouse(settings));
  await reconcileUntilDone(nc, topology(settings), log, health, signal);

  const retention = readRetention(settings);
  const tenants = stack.use(await followDirectory(nc, health, log, signal));
  const parts = {
    nc,
    clickhouse,
    settings,
    policy: policyOf(tenants.directory, tenants.reader, { site: settings.site, settings: () => retention }),
    owner: `${hostname()}/${process.pid}/${randomUUID()}`,
    log,
    health,
    metrics: projectorMetrics(telemetry, systemClock.now),
    library: libraryOf(settings),
  };
  const prepare = (generation: number, leave: AbortSignal) => migrateUntilDone(clickhouse, generation, leave);
  const work = (generation: number, shard: number, leave: AbortSignal, abandon: AbortSignal) =>
    shardWorker(parts, generation, shard, [leave, abandon]).run();
  health.notReady("clickhouse", "the tables are not made sure of yet");
  const fleet = stack.use(new Fleet(settings.shards, { prepare, work }, FINISH_MS));
  const generations = generationsRegister(nc, settings.site);
  const lost = async () => (await readPointer(generations, clickhouse, settings.site)).lost;
  const pointer = new Pointer({
    generations,
    retention,
    health,
    log,
    lost,
    follow: (now) => fleet.follow(now),
  });
  const follow = followGenerations(
    nc,
    settings.site,
    (now, revision) => pointer.changed(now, revision),
    (error) => health.warn("generations", error === undefined ? undefined : messageOf(error)),
    signal,
  );
  const looking = pointer.run(signal);
  stack.defer(() => Promise.all([follow, looking]).then(() => undefined));
  health.notReady("start", undefined);
});

async function migrateUntilDone(clickhouse: ClickHouse, generation: number, leave: AbortSignal): Promise<void> {
  const migrations = readMigrations(MIGRATIONS);
  const subject = `generation ${generation}`;
  for (let attempt = 0; !leave.aborted; attempt++) {
    try {
      const { applied, differs } = await migrate(clickhouse, migrations, generation, settings.cluster);
      if (applied.length > 0) log.info({ generation, applied }, "made the tables");
      const advice = `it was made before ${differs.join(", ")} changed, and serves as it is; \`relog rebuild\` makes the next one with the new schema`;
      health.warn(subject, differs.length === 0 ? undefined : advice);
      health.notReady("clickhouse", undefined);
      return;
    } catch (error) {
      health.notReady("clickhouse", messageOf(error));
      log.warn({ generation, err: error }, "the tables cannot be made sure of yet");
      await sleep(backoffMs(attempt, 200, 5_000), leave);
    }
  }
}

// The projector: turns the streams into the tables of one site.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { fileURLToPath } from "node:url";
import { systemClock } from "../lib/base/clock.ts";
import { integer, text } from "../lib/base/config.ts";
import { messageOf } from "../lib/base/errors.ts";
import { Health, healthRoutes } from "../lib/base/health.ts";
import { httpSettings, serveHttp } from "../lib/base/http.ts";
import { runProcess, settingsOrExit } from "../lib/base/lifecycle.ts";
import { backoffMs, sleep } from "../lib/base/loop.ts";
import { followParent } from "../lib/base/parent-pipe.ts";
import { createTelemetry } from "../lib/base/telemetry.ts";
import { STREAMS } from "../lib/event/envelope.ts";
import type { Checkpoint } from "../lib/projector/checkpoint.ts";
import { checkpointKey } from "../lib/projector/checkpoint.ts";
import { failpointFrom } from "../lib/projector/failpoint.ts";
import { projectorMetrics } from "../lib/projector/metrics.ts";
import { projectorSettings, ShardWorker } from "../lib/projector/run.ts";
import { siteOf } from "../lib/projector/site.ts";
import { clickhouseSettings, openClickHouse } from "../lib/store/client.ts";
import { engineTimeMs, inserter, killInserts, presence } from "../lib/store/insert.ts";
import { clusterSettings, GENERATIONS_MAX, generationDatabase, migrate, readMigrations } from "../lib/store/migrate.ts";
import { register } from "../lib/streams/cas.ts";
import { connectNats, natsSettings } from "../lib/streams/connection.ts";
import { parker } from "../lib/streams/dead.ts";
import { readStream, streamState } from "../lib/streams/read.ts";
import { reconcileUntilDone, topology, topologySettings } from "../lib/streams/topology.ts";

const telemetry = createTelemetry("projector");
const { log } = telemetry;
const health = new Health();
const settings = settingsOrExit(
  log,
  {
    port: integer("RELOG_PROJECTOR_PORT", "8082", [0, 65535], "port", "health and metrics of the projector"),
    site: text("RELOG_SITE", "main", "name of the ClickHouse server or cluster that this projector fills"),
    generation: integer(
      "RELOG_GENERATION",
      "1",
      [1, GENERATIONS_MAX],
      "number",
      "which build of the projection it fills; readers are granted 32 of them",
    ),
    failpoint: text("RELOG_FAILPOINT", "", "tests only: name:count ends the process at that step"),
    ...httpSettings,
    ...natsSettings,
    ...topologySettings,
    ...clickhouseSettings,
    ...clusterSettings,
    ...projectorSettings,
  },
  process.env,
  ({ leaseMs }) => (leaseMs < 2_000 ? "RELOG_LEASE must be at least 2s: inserts are fenced a second before the lease ends" : undefined),
  ({ planRecordsEnough, planRecordsMax }) =>
    planRecordsEnough > planRecordsMax ? "RELOG_PLAN_RECORDS_ENOUGH must be at most RELOG_PLAN_RECORDS_MAX" : undefined,
);

const MIGRATIONS = fileURLToPath(new URL("../schemas/clickhouse", import.meta.url));
/** How long a plan that is under way may take to end after SIGTERM. */
const FINISH_MS = 3_500;
const DEAD_LETTER_LOG_MS = 5_000;

await runProcess(log, health, settings.drainMs, async (stack, signal) => {
  if (process.env.RELOG_PARENT_PIPE === "1") followParent(() => process.kill(process.pid, "SIGTERM"));
  health.notReady("start", "starting");
  stack.use(await serveHttp({ app: healthRoutes(health, telemetry.registry) }, settings.listenHost, settings.port, "RELOG_PROJECTOR_PORT"));

  const nc = await connectNats(settings, "projector", log, health);
  stack.defer(() => nc.close());
  const clickhouse = stack.use(openClickHouse(settings));
  await reconcileUntilDone(nc, topology(settings), log, health, signal);
  await migrateUntilDone(signal);

  const owner = `${hostname()}/${process.pid}/${randomUUID()}`;
  const metrics = projectorMetrics(telemetry, systemClock.now);
  const store = {
    insert: inserter(clickhouse),
    presence: presence(clickhouse),
    kill: (token: string) => killInserts(clickhouse, token, settings.cluster),
    timeMs: () => engineTimeMs(clickhouse),
  };
  const [leave, abandon] = [new AbortController(), new AbortController()];
  const shards = Array.from({ length: settings.shards }, async (_, shard) => {
    const name = `${settings.site}/${settings.generation}/${shard}`;
    const stream = STREAMS.logs(shard);
    let quietUntilMs = 0;
    const park = parker(nc, settings.site, settings.generation, shard);
    const ports = {
      name,
      register: register<Checkpoint>(nc, checkpointKey(settings.site, settings.generation, shard)),
      read: (from: number, bounds: { messagesMax: number; bytesMax: number }) =>
        readStream(nc, stream, from, bounds, settings.requestTimeoutMs),
      facts: () => streamState(nc, stream),
      site: siteOf(store, generationDatabase(settings.generation), systemClock),
      park: async (letter: Parameters<typeof park>[0]) => {
        await park(letter);
        metrics.dead.inc({ shard: name, reason: letter.reason });
        // A flood of them is one line now and then; each is in DEAD_LETTERS and in the metric.
        if (systemClock.monotonicMs() < quietUntilMs) return;
        quietUntilMs = systemClock.monotonicMs() + DEAD_LETTER_LOG_MS;
        log.error({ shard: name, seq: letter.message.seq, reason: letter.reason, detail: letter.detail }, "dead letter");
      },
      failpoint: failpointFrom(settings.failpoint),
    };
    await new ShardWorker({
      ports,
      settings,
      owner,
      clock: systemClock,
      log,
      health,
      metrics,
      leave: leave.signal,
      abandon: abandon.signal,
    }).run();
  });
  stack.defer(async () => {
    leave.abort();
    const timer = setTimeout(() => abandon.abort(), FINISH_MS);
    await Promise.all(shards);
    clearTimeout(timer);
  });
  health.notReady("start", undefined);

  async function migrateUntilDone(signal: AbortSignal): Promise<void> {
    const migrations = readMigrations(MIGRATIONS);
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        const applied = await migrate(clickhouse, migrations, settings.generation, settings.cluster);
        if (applied.length > 0) log.info({ applied }, "applied migrations");
        health.notReady("clickhouse", undefined);
        return;
      } catch (error) {
        health.notReady("clickhouse", messageOf(error));
        log.warn({ err: error }, "the tables cannot be made sure of yet");
        await sleep(backoffMs(attempt, 200, 5_000), signal);
      }
    }
  }
});

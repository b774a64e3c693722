// The query service: SQL over the logs, receipts, accounts.

import { Hono } from "hono";
import { accountsApi } from "../lib/accounts/api.ts";
import { systemClock } from "../lib/base/clock.ts";
import { integer } from "../lib/base/config.ts";
import { devKeySettings } from "../lib/base/dev-key.ts";
import { messageOf, RelogError } from "../lib/base/errors.ts";
import { Health, healthRoutes } from "../lib/base/health.ts";
import { httpSettings, serveHttp, withContractErrors } from "../lib/base/http.ts";
import { runProcess, settingsOrExit } from "../lib/base/lifecycle.ts";
import { openApiRoutes } from "../lib/base/openapi.ts";
import { followParent } from "../lib/base/parent-pipe.ts";
import { shareSettings } from "../lib/base/share.ts";
import { createTelemetry } from "../lib/base/telemetry.ts";
import { tenantLimitSettings } from "../lib/limits/values.ts";
import { queryApi } from "../lib/query/api.ts";
import { engineSettings, querySettings, sqlFitsEngine } from "../lib/query/limits.ts";
import { receiptsApi } from "../lib/query/receipts.ts";
import { createGate } from "../lib/query/sql/gate.ts";
import { rememberAccepted } from "../lib/query/sql/remember.ts";
import { clickhouseReaderSettings, clickhouseSettings, openClickHouse } from "../lib/store/client.ts";
import { clusterSettings, generationDatabase } from "../lib/store/migrate.ts";
import { createSqlParser } from "../lib/store/parse.ts";
import { createSelect } from "../lib/store/select.ts";
import { usageStore } from "../lib/store/usage.ts";
import type { NatsConnection } from "../lib/streams/connection.ts";
import { connectNats, natsSettings } from "../lib/streams/connection.ts";
import { followGenerations } from "../lib/streams/generations.ts";
import { deferSettings, shardSettings } from "../lib/streams/topology.ts";
import { tailSettings } from "../lib/tail/limits.ts";
import { usageApi } from "../lib/usage/api.ts";
import { accountsApiPorts, ensureInstallation, openAccounts } from "./parts/accounts.ts";
import { queryDocument } from "./parts/document.ts";
import { openSlots, queryTenancy } from "./parts/limits.ts";
import { followLive, watchClickHouse } from "./parts/live.ts";
import { Metering } from "./parts/meter.ts";
import { siteSettings } from "./parts/projection.ts";
import { receiptPorts } from "./parts/receipts.ts";
import { tails } from "./parts/tail.ts";
import { usagePorts } from "./parts/usage.ts";

const settings = {
  ...httpSettings,
  ...devKeySettings,
  ...clickhouseSettings,
  ...clickhouseReaderSettings,
  ...clusterSettings,
  ...querySettings,
  ...shareSettings,
  ...tenantLimitSettings,
  ...natsSettings,
  ...shardSettings,
  ...deferSettings,
  ...siteSettings,
  ...tailSettings,
  port: integer("RELOG_QUERY_PORT", "8081", [0, 65_535], "port", "HTTP of the query service"),
};

const telemetry = createTelemetry("query");
const { log } = telemetry;
const health = new Health();

const values = settingsOrExit(log, settings, process.env, sqlFitsEngine, (v) =>
  v.timeMaxMs >= v.requestTimeMaxMs ? "RELOG_QUERY_TIME_MAX must be shorter than CLICKHOUSE_REQUEST_TIME_MAX" : undefined,
);

if (process.env.RELOG_PARENT_PIPE === "1") followParent(() => process.kill(process.pid, "SIGTERM"));
await runProcess(log, health, values.drainMs, async (stack, signal) => {
  const { url, user, password, readerUser, readerPassword, connectionsMax, requestTimeMaxMs } = values;
  const writer = stack.use(openClickHouse({ url, user, password, connectionsMax, requestTimeMaxMs }));
  const reader = stack.use(openClickHouse({ url, user: readerUser, password: readerPassword, connectionsMax, requestTimeMaxMs }));

  const live = followLive(writer, values.site, health, log);
  const liveDatabase = (): string => generationDatabase(live.generation);

  const gate = rememberAccepted(createGate(createSqlParser(reader), values.sqlBytesMax), systemClock);
  const select = createSelect(reader, writer, (queryId, error) =>
    log.warn({ queryId, err: error }, "a cancelled query could not be killed"),
  );
  const accounts = openAccounts("query", values, health, telemetry);
  const { authenticate } = accounts;
  const metering = new Metering(accounts, values.shards, false, health, telemetry);
  const queries = openSlots("queries", accounts.directory, values, telemetry);
  const opened = openSlots("tails", accounts.directory, values, telemetry);

  // Receipts need NATS, SQL only needs to know once which generation is live: the connection is made beside.
  let nats: NatsConnection | undefined;
  const receiptsHealth = new Health();
  receiptsHealth.notReady = (_subject, reason) => health.warn("receipts", reason);
  const connecting = connectNats(values, "query", log, receiptsHealth).then((nc) => {
    nats = nc;
    const onFault = (error: unknown): void => health.warn("generations", error === undefined ? undefined : messageOf(error));
    const operated = accounts.begin(nc, signal).then(() => ensureInstallation(accounts, values, telemetry, signal));
    const followed = followGenerations(nc, values.site, (now, revision) => live.changed(now, revision), onFault, signal);
    const metered = operated.then(() => metering.begin(nc, signal));
    return Promise.all([metered, followed, queries.share(nc, signal), opened.share(nc, signal)]);
  });
  connecting.catch((error: unknown) => log.error({ err: error }, "cannot connect to NATS"));
  stack.defer(() => nats?.close());
  stack.use(accounts);
  function connected(): NatsConnection {
    if (nats === undefined) throw new RelogError("stream_unavailable", "NATS is not connected yet", { retryAfterS: 2 });
    return nats;
  }

  const app = withContractErrors(new Hono(), log);
  app.route("/", healthRoutes(health, telemetry.registry));
  const sideTables = (tenant: string) => live.sideTables(tenant);
  const tenancy = queryTenancy(accounts.directory, queries.slots);
  const queryPorts = { authenticate, gate, select, liveDatabase, sideTables, tenancy };
  app.route("/", queryApi(queryPorts, values, values.sqlBytesMax, telemetry));
  app.route("/", receiptsApi(authenticate, receiptPorts(connected, values)));
  app.route(
    "/",
    tails(accounts, values, connected, telemetry, signal, (principal) => opened.slots.take(principal)),
  );
  app.route("/", accountsApi(authenticate, accountsApiPorts("query", accounts, connected)));
  const windows = (tenant: string) => (metering.meter.ready ? metering.meter.windows(tenant) : undefined);
  const usage = usagePorts(usageStore(writer, values.cluster), accounts.directory, () => live.generation, windows);
  app.route("/", usageApi(authenticate, { ...usage, ready: () => accounts.ready }));
  app.route("/", openApiRoutes(queryDocument()));

  const checks = watchClickHouse(live, () => reader.read({ statement: "SELECT 1", settings: engineSettings(values) }), health, signal);
  stack.defer(() => checks);
  const server = stack.use(await serveHttp(app, values.listenHost, values.port, "RELOG_QUERY_PORT"));
  log.info({ port: server.port }, "query service is listening");
});

// The gateway: takes logs over HTTP and NATS, appends them to the streams, answers.

import { Hono } from "hono";
import { systemClock } from "../lib/base/clock.ts";
import { integer } from "../lib/base/config.ts";
import { devKeySettings } from "../lib/base/dev-key.ts";
import { RelogError } from "../lib/base/errors.ts";
import { Health, healthRoutes } from "../lib/base/health.ts";
import { httpSettings, serveHttp, withContractErrors } from "../lib/base/http.ts";
import { runProcess, settingsOrExit } from "../lib/base/lifecycle.ts";
import { followParent } from "../lib/base/parent-pipe.ts";
import { createTelemetry } from "../lib/base/telemetry.ts";
import { isTenant, STREAMS, SUBJECTS } from "../lib/event/envelope.ts";
import { acceptor, acceptSettings } from "../lib/ingest/accept.ts";
import { admission, admitSettings } from "../lib/ingest/admit.ts";
import { bodySettings } from "../lib/ingest/body.ts";
import { ingestApi } from "../lib/ingest/gateway.ts";
import { ownRepliesOnly } from "../lib/ingest/native/replies.ts";
import { nativeIngest } from "../lib/ingest/native/serve.ts";
import type { Tenancy } from "../lib/ingest/tenancy.ts";
import { tenantLimitSettings } from "../lib/limits/values.ts";
import { appender, appendFault, appendSettings } from "../lib/streams/append.ts";
import { calloutFault, calloutSettings } from "../lib/streams/auth-callout.ts";
import { connectNats, natsSettings } from "../lib/streams/connection.ts";
import { envelopeAt } from "../lib/streams/envelope-at.ts";
import { serveQueue } from "../lib/streams/serve.ts";
import { reconcileUntilDone, topology, topologySettings } from "../lib/streams/topology.ts";
import { openAccounts } from "./parts/accounts.ts";
import { gapSettings, openOverQuota } from "./parts/deferred.ts";
import { openGatewayLimits } from "./parts/limits.ts";
import { Metering } from "./parts/meter.ts";
import { openNatsKeys } from "./parts/nats-keys.ts";

const telemetry = createTelemetry("gateway");
const health = new Health();

const settings = settingsOrExit(
  telemetry.log,
  {
    port: integer("RELOG_GATEWAY_PORT", "8080", [0, 65535], "port", "HTTP ingestion"),
    ...httpSettings,
    ...devKeySettings,
    ...natsSettings,
    ...calloutSettings,
    ...topologySettings,
    ...appendSettings,
    ...acceptSettings,
    ...bodySettings,
    ...admitSettings,
    ...tenantLimitSettings,
    ...gapSettings,
  },
  process.env,
  appendFault,
  ({ bodyBytesMax, bytesInFlightMax }) =>
    bodyBytesMax > bytesInFlightMax ? "RELOG_BYTES_IN_FLIGHT_MAX must be at least RELOG_BODY_BYTES_MAX" : undefined,
  ({ tenant }) => (isTenant(tenant) ? undefined : "RELOG_TENANT must be lower-case letters, digits, - or _, at most 63"),
  calloutFault,
);

await runProcess(telemetry.log, health, settings.drainMs, async (stack, signal) => {
  if (process.env.RELOG_PARENT_PIPE === "1") followParent(() => process.kill(process.pid, "SIGTERM"));
  health.notReady("start", "starting");
  const healthApp = healthRoutes(health, telemetry.registry);
  const starting = new Hono().route("/", healthApp).all("*", () => {
    throw new RelogError("not_ready", "the gateway is starting", { retryAfterS: 1 });
  });
  const front = { app: withContractErrors(starting, telemetry.log) };
  const server = stack.use(await serveHttp(front, settings.listenHost, settings.port, "RELOG_GATEWAY_PORT"));

  const nc = await connectNats(settings, "gateway", telemetry.log, health);
  stack.defer(() => nc.close());
  await reconcileUntilDone(nc, topology(settings), telemetry.log, health, signal);
  const accounts = stack.use(openAccounts("gateway", settings, health, telemetry));
  const metering = new Metering(accounts, settings.shards, true, health, telemetry);
  await accounts.begin(nc, signal);
  await metering.begin(nc, signal);

  const report = (shard: number, why: string | undefined): void => health.warn(STREAMS.logs(shard), why);
  const { rates, names } = stack.use(openGatewayLimits(nc, accounts.directory, settings, health, telemetry));
  const append = appender(nc, settings, report);
  const over = stack.use(await openOverQuota(nc, settings, append, metering.quotas, health, telemetry, signal));
  const tenancy: Tenancy = {
    over,
    limits: (principal) => rates.of(principal),
    quotas: metering.quotas,
    attributes: (tenant) => names.of(tenant),
  };
  const admitted = admission(settings, telemetry, () => accounts.directory.size <= 1);
  const accept = acceptor(settings, settings.shards, append, (stream, seq) => envelopeAt(nc, stream, seq), systemClock, telemetry, tenancy);
  const natsKeys = stack.use(openNatsKeys(settings, nc, accounts, health, telemetry));
  const api = ingestApi(accounts.authenticate, accept, admitted, settings, telemetry, tenancy);
  const handle = nativeIngest(natsKeys.callerOf, accept, admitted, settings, telemetry, tenancy);
  stack.use(
    serveQueue(
      nc,
      SUBJECTS.ingest("*"),
      "gateways",
      natsKeys.vouched,
      telemetry.log,
      ownRepliesOnly(natsKeys.isOwnReply, telemetry, handle),
    ),
  );
  front.app = withContractErrors(new Hono().route("/", healthApp).route("/", api), telemetry.log);
  // Calls under way are answered while NATS is still there; closing the server twice is harmless.
  stack.defer(() => server[Symbol.asyncDispose]());
  health.notReady("start", undefined);
});

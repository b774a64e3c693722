// What the streams of a stage hold.

import { Health } from "../../lib/base/health.ts";
import { createTelemetry } from "../../lib/base/telemetry.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import { connectNats } from "../../lib/streams/connection.ts";
import { streamState } from "../../lib/streams/read.ts";

/** Bytes of all LOGS streams together. */
export async function streamBytes(env: Readonly<Record<string, string>>, shards: number): Promise<number> {
  const settings = {
    natsUrl: env.NATS_URL!,
    natsUser: env.NATS_USER!,
    natsPassword: env.NATS_PASSWORD!,
    caFile: "",
    reconnectWaitMs: 250,
    requestTimeoutMs: 5_000,
  };
  const nc = await connectNats(settings, "bench", createTelemetry("bench", "error", false).log, new Health());
  try {
    const states = await Promise.all(Array.from({ length: shards }, (_, shard) => streamState(nc, STREAMS.logs(shard))));
    return states.reduce((sum, state) => sum + state.bytes, 0);
  } finally {
    await nc.close();
  }
}

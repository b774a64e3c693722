// Real streams of one shard, for the tests of this folder.

import type { NatsConnection } from "nats";
import { connect } from "nats";
import { startStack } from "../devstack/stack.ts";
import { reconcile, topology } from "./topology.ts";

export interface TestStreams extends AsyncDisposable {
  readonly nc: NatsConnection;
}

/** A nats-server of its own with relog's streams, until it is disposed. @param dedupeWindowMs how long a stream knows an id */
export async function testStreams(dedupeWindowMs: number): Promise<TestStreams> {
  await using undo = new AsyncDisposableStack();
  const engines = undo.use(await startStack({ env: process.env, clickhouse: false }));
  const nc = await connect({ servers: engines.natsUrl, user: engines.natsUser, pass: engines.natsPassword, noAsyncTraces: true });
  undo.defer(() => nc.close());
  const limits = { streamBytesMax: 2 ** 26, streamAgeMaxMs: 86_400_000, deadLetterBytesMax: 2 ** 20, dedupeWindowMs };
  await reconcile(nc, topology({ shards: 1, replicas: 1, ...limits }));
  const owned = undo.move();
  return { nc, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

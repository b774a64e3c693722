// How far every projection of a shard is, as the bucket `projections` says.

import type { NatsConnection } from "nats";
import { STREAMS } from "../event/envelope.ts";

export interface ShardProgress {
  readonly site: string;
  readonly generation: number;
  /** The first sequence that is not settled. */
  readonly next: number;
}

const KEY = /^checkpoint\.([^.]+)\.(\d+)\.(\d+)$/;

/** Every site's and generation's progress on a shard. @throws NatsError when JetStream does not answer */
export async function shardProgress(nc: NatsConnection, shard: number): Promise<ShardProgress[]> {
  const manager = await nc.jetstreamManager({ checkAPI: false });
  const stream = `KV_${STREAMS.projections}`;
  const prefix = `$KV.${STREAMS.projections}.`;
  const info = await manager.streams.info(stream, { subjects_filter: `${prefix}checkpoint.*.*.${shard}` });
  const progress: ShardProgress[] = [];
  for (const subject of Object.keys(info.state.subjects ?? {})) {
    const match = KEY.exec(subject.slice(prefix.length));
    if (match === null) continue;
    const message = await manager.streams.getMessage(stream, { last_by_subj: subject });
    progress.push({ site: match[1]!, generation: Number(match[2]), next: message.json<{ next: number }>().next });
  }
  return progress;
}

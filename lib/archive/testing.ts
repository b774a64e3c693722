// For tests of the archive: a real server with the bucket of registers, a shard's stream with archivers of it, and a store with faults.

import type { NatsConnection } from "nats";
import { connect, headers as natsHeaders } from "nats";
import type { Clock } from "../base/clock.ts";
import type { Environment } from "../base/config.ts";
import { waitFor } from "../base/loop.ts";
import { startStack } from "../devstack/stack.ts";
import { envelopeHeaders, STREAMS, SUBJECTS } from "../event/envelope.ts";
import { register } from "../streams/cas.ts";
import { readStream, streamState } from "../streams/read.ts";
import { reconcile, topology } from "../streams/topology.ts";
import type { ArchiverPorts, ArchiverSettings, ArchiveState } from "./archiver.ts";
import { Archiver, archiveKey } from "./archiver.ts";
import type { ObjectStore } from "./objects.ts";
import type { ReadStream, StreamFacts } from "./ports.ts";

/** Starts a server with the bucket of registers; it and the connection end with `stack`. */
export async function startRegisters(env: Environment, stack: AsyncDisposableStack): Promise<NatsConnection> {
  const engines = stack.use(await startStack({ env, clickhouse: false }));
  const nc = await connect({ servers: engines.natsUrl, user: engines.natsUser, pass: engines.natsPassword });
  stack.defer(() => nc.close());
  const limits = { streamBytesMax: -1, streamAgeMaxMs: 0, deadLetterBytesMax: -1, dedupeWindowMs: 1_000 };
  const specs = topology({ shards: 1, replicas: 1, ...limits });
  const buckets = specs.filter(({ name }) => name.startsWith("KV_"));
  await reconcile(nc, buckets);
  return nc;
}

/** A store with places to reach in: what a hook throws or returns takes the place of what the store does. */
export function tampered(
  objects: ObjectStore,
  hooks: { put?: (key: string) => void; get?: (key: string, bytes: Uint8Array | undefined) => Uint8Array | undefined; any?: () => void },
): ObjectStore {
  return {
    name: objects.name,
    async put(key, bytes, sha) {
      hooks.any?.();
      hooks.put?.(key);
      await objects.put(key, bytes, sha);
    },
    async get(key) {
      hooks.any?.();
      const bytes = await objects.get(key);
      return hooks.get === undefined ? bytes : hooks.get(key, bytes);
    },
    async *list(prefix) {
      hooks.any?.();
      yield* objects.list(prefix);
    },
    async delete(key) {
      hooks.any?.();
      await objects.delete(key);
    },
  };
}

/** One shard's stream on a real server, and archivers of it. Messages are as old as `aheadMs` says. */
export class Rig {
  readonly nc: NatsConnection;
  readonly shard: number;
  readonly objects: ObjectStore;
  readonly said: string[] = [];
  /** How far the clock of the archivers is ahead: with more than a segment age, whatever is there is sealed. */
  aheadMs = 0;
  readonly clock: Clock = { now: () => Date.now() + this.aheadMs, monotonicMs: () => performance.now() };
  readonly #settings: ArchiverSettings;

  constructor(nc: NatsConnection, shard: number, objects: ObjectStore, settings: Partial<ArchiverSettings> = {}) {
    this.nc = nc;
    this.shard = shard;
    this.objects = objects;
    this.#settings = { archiveSegmentBytes: 2_300, archiveSegmentAgeMs: 3_600_000, archivePollMs: 5, archiveLeaseMs: 600, ...settings };
  }

  get stream(): string {
    return STREAMS.logs(this.shard);
  }
  read: ReadStream = (from, bounds) => readStream(this.nc, this.stream, from, bounds, 5_000);
  facts = (): Promise<StreamFacts> => streamState(this.nc, this.stream);
  get state() {
    return register<ArchiveState>(this.nc, archiveKey(this.shard));
  }

  async make(): Promise<void> {
    const manager = await this.nc.jetstreamManager();
    await manager.streams.add({ name: this.stream, subjects: [SUBJECTS.logsOfShard(this.shard)], allow_direct: true });
  }

  /** Replaces the stream by a new one. */
  async remake(): Promise<void> {
    await (await this.nc.jetstreamManager()).streams.delete(this.stream);
    await this.make();
  }

  /** Publishes `count` batches of 300 bytes, about 655 in a segment: four fill one, three and a hole never do. */
  async publish(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const numbers = { schema: 1, part: 1, parts: 1, firstLine: 0, records: 2, accepted: 2, rejected: 0, bytes: 10, source: "test" };
      const batch = `${this.shard}-${i}-${Math.random().toFixed(14)}`;
      const envelope = { ...numbers, tenant: "acme", batch, minTimestamp: BigInt(i), maxTimestamp: BigInt(i + 5), bodyHash: "" };
      await this.send("acme", envelopeHeaders(envelope, batch), Buffer.alloc(300, i));
    }
  }

  async send(tenant: string, pairs: readonly (readonly [string, string])[], payload: Uint8Array): Promise<void> {
    const headers = natsHeaders();
    for (const [name, value] of pairs) headers.append(name, value);
    await this.nc.jetstream().publish(SUBJECTS.logs(this.shard, tenant), payload, { headers });
  }

  /** An archiver; what happens to it is `said`. */
  archiver(owner: string, changed: Partial<ArchiverPorts> = {}): Archiver {
    const say = (what: string): void => {
      if (this.said.at(-1) !== what) this.said.push(what);
    };
    const ports: ArchiverPorts = {
      objects: this.objects,
      register: this.state,
      read: this.read,
      facts: this.facts,
      failpoint: () => undefined,
      events: {
        owning: (next) => say(`${owner} owns from ${next}`),
        sealed: ({ from, to }) => say(`sealed ${from}-${to}`),
        resumed: ({ from, to }, found) => say(`resumed ${from}-${to}${found ? ", found" : ""}`),
        aged: (from, to) => say(`aged ${from}-${to}`),
        replaced: (_, unsealedFrom) => say(`replaced at ${unsealedFrom}`),
        rewound: (registered, next) => say(`rewound ${registered} to ${next}`),
        unsealed: () => undefined,
        fault: (error) => error !== undefined && say(`fault: ${(error as Error).message}`),
      },
      ...changed,
    };
    return new Archiver(this.shard, ports, this.#settings, owner, this.clock);
  }

  /** Runs an archiver until something is true. */
  async until(what: string, archiver: Archiver, probe: () => boolean | Promise<boolean>): Promise<void> {
    const stop = new AbortController();
    const running = archiver.run(stop.signal);
    try {
      await waitFor(what, async () => ((await probe()) ? true : undefined), 20_000);
    } finally {
      stop.abort();
      await running;
    }
  }

  /** Runs an archiver until everything that the stream has now is sealed, however young. */
  async sealAll(archiver = this.archiver("all")): Promise<void> {
    this.aheadMs = 7_200_000;
    const { lastSeq, created } = await this.facts();
    await this.until("everything to be sealed", archiver, async () => {
      const value = (await this.state.read())?.value;
      return value?.stream === created && value.next === lastSeq + 1 && value.plan === null;
    });
  }
}

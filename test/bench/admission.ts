// G, the parts without load: what it costs to know a caller and to hold it to its limits, and to know ten thousand tenants.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { NatsConnection } from "nats";
import { connect } from "nats";
import { authenticator } from "../../lib/accounts/authenticate.ts";
import { Directory } from "../../lib/accounts/directory.ts";
import { newKey } from "../../lib/accounts/keys.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { startService } from "../../lib/devstack/service.ts";
import { startStack } from "../../lib/devstack/stack.ts";
import { BatchBuilder } from "../../lib/event/batch.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import { recordLimits } from "../../lib/ingest/decoded.ts";
import { decodeNdjson } from "../../lib/ingest/ndjson/decode.ts";
import { FieldMap } from "../../lib/ingest/ndjson/fields.ts";
import { AttributeNames } from "../../lib/limits/names.ts";
import { Rates } from "../../lib/limits/rates.ts";
import { NO_DEFAULTS } from "../../lib/limits/testing.ts";
import { bodies } from "../../lib/load/generator.ts";
import { frameOf } from "./frames.ts";
import type { BenchOptions } from "./options.ts";
import { corpusOf } from "./whole-path.ts";

const TENANTS = 10_000;
const RECORD_LIMITS = { recordBytesMax: 256 * 1024, attributesMax: 256, depthMax: 32, keyBytesMax: 512, futureMaxMs: 86_400_000 };
const CODEC_RECORDS = 50_000;
const CALLS = 50_000;
const ROUNDS = 5;
/** A small call: larger ones pay less of it for a record. */
const CALL_RECORDS = 100;

const DEFAULTS = { ...NO_DEFAULTS, attributeNamesPerDay: 2_000 };

interface Made {
  readonly tenant: string;
  readonly key: string;
  readonly payload: Buffer;
}

/** The messages of CONTROL that make tenants with two keys and limits each. */
function makeTenants(count: number): Made[] {
  const time = new Date().toISOString();
  const amounts = { ingest_requests_per_second: 1e9, ingest_records_per_second: 1e12, ingest_bytes_per_second: 1e15 };
  return Array.from({ length: count }, (_, i) => {
    const keys = [newKey(), newKey()];
    const facts = { label: "bench", scopes: ["ingest"], expires: null, operator: false, replaces: null };
    const events = [
      { type: "tenant_created", title: "" },
      ...keys.map(({ id, hash }) => ({ type: "key_created", key: id, hash, ...facts })),
      { type: "limits_changed", limits: amounts },
      { type: "key_limited", key: keys[0]!.id, limits: amounts },
    ];
    const message = { version: 1, id: newBatchId(Date.now()), time, tenant: `t-${i}`, who: "bench", where: "bench", events };
    return { tenant: `t-${i}`, key: keys[0]!.key, payload: Buffer.from(JSON.stringify(message)) };
  });
}

function directoryOf(made: readonly Made[]): Directory {
  const directory = new Directory(systemClock);
  for (const [i, { tenant, payload }] of made.entries()) directory.apply(i + 1, tenant, payload);
  return directory;
}

async function bestCpuS(work: () => Promise<void> | void): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const begin = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(begin);
    best = Math.min(best, (user + system) / 1e6);
  }
  return best;
}

export interface Admission {
  readonly callRecords: number;
  /** Microseconds of CPU a call: who it is, three buckets of the tenant and of the key, the fields, the names of a block. */
  readonly callUs: number;
  /** Microseconds of CPU for a call that is refused before its body is read. */
  readonly refusalUs: number;
  /** CPU microseconds a record: of the above, and of decoding, block and zstd alone, without HTTP and NATS. */
  readonly recordUs: number;
  readonly codecRecordUs: number;
}

export async function admission(options: BenchOptions): Promise<Admission> {
  const made = makeTenants(1_000);
  const directory = directoryOf(made);
  const lookup = (tenant: string, keyId: string) => directory.limitsOf(tenant, keyId);
  const authenticate = authenticator(
    { key: "", tenant: "default" },
    directory,
    () => true,
    () => undefined,
  );
  const rates = new Rates(lookup, DEFAULTS, systemClock.monotonicMs);
  const ports = { read: async () => undefined, write: async () => 1, tell: () => undefined };
  const names = new AttributeNames(lookup, DEFAULTS, ports, systemClock, "bench", () => undefined);
  for (const { tenant } of made) await names.of(tenant);

  const corpus = await Array.fromAsync(bodies({ ...corpusOf(options, CODEC_RECORDS), batchRecords: CALL_RECORDS }));
  const builder = new BatchBuilder();
  decodeNdjson(corpus[0]!, new FieldMap(), recordLimits(RECORD_LIMITS, Date.now()), {
    accept: (draft) => builder.add(draft),
    reject: ({ message }) => {
      throw new Error(message);
    },
  });
  let said = 0;
  const callS = await bestCpuS(async () => {
    for (let i = 0; i < CALLS; i++) {
      const principal = authenticate(made[i % made.length]!.key)!;
      const call = rates.of(principal);
      call.enter();
      call.body(corpus[0]!.length);
      const known = names.of(principal.tenant);
      const day = known instanceof Promise ? await known : known;
      if (!builder.names.every((all) => all.every((name) => day.admits(name)))) throw new Error("a name is refused");
      call.records(CALL_RECORDS);
      for (const [, value] of call.fields()) said += value.length;
    }
  });
  // One in debt for ever.
  const debtor = rates.of(authenticate(made[0]!.key)!);
  debtor.body(Number.MAX_SAFE_INTEGER);
  const refusalS = await bestCpuS(() => {
    for (let i = 0; i < CALLS; i++) {
      const call = rates.of(authenticate(made[0]!.key)!);
      try {
        call.enter();
        throw new Error("it was let in");
      } catch (error) {
        said += (error as Error).message.length;
      }
      for (const [, value] of call.fields()) said += value.length;
    }
  });
  if (said === 0) throw new Error("nothing was said");
  const codecS = await bestCpuS(async () => {
    for (const body of corpus) await frameOf(body, "bench");
  });
  return {
    callRecords: CALL_RECORDS,
    callUs: (callS / CALLS) * 1e6,
    refusalUs: (refusalS / CALLS) * 1e6,
    recordUs: (callS / CALLS / CALL_RECORDS) * 1e6,
    codecRecordUs: (codecS / CODEC_RECORDS) * 1e6,
  };
}

export interface ManyTenants {
  readonly tenants: number;
  /** As a gateway says that starts: from the first read of CONTROL to its end. */
  readonly loadMs: number;
  /** CPU of folding alone. */
  readonly foldCpuMs: number;
  /** Of the accounts in memory, after a collection. */
  readonly heapBytes: number;
}

export async function manyTenants(env: NodeJS.ProcessEnv): Promise<ManyTenants> {
  const made = makeTenants(TENANTS);
  const foldCpuMs = 1_000 * (await bestCpuS(() => void directoryOf(made)));
  const heapBytes = heapOf(() => directoryOf(made));
  await using stack = await startStack({ env, clickhouse: false });
  // The first one makes the streams.
  await (await startService("gateway", stack))[Symbol.asyncDispose]();
  const nc = await connect({ servers: stack.natsUrl, user: stack.natsUser, pass: stack.natsPassword });
  await publishAll(nc, made);
  await nc.close();
  await using gateway = await startService("gateway", stack);
  const line = gateway.logs.find((text) => text.includes("accounts are read"));
  if (line === undefined) throw new Error("the gateway does not say how long it read");
  const { tenants, ms } = JSON.parse(line) as { tenants: number; ms: number };
  if (tenants < TENANTS) throw new Error(`the gateway knows ${tenants} of ${TENANTS} tenants`);
  return { tenants, loadMs: ms, foldCpuMs, heapBytes };
}

async function publishAll(nc: NatsConnection, made: readonly Made[]): Promise<void> {
  const jetstream = nc.jetstream({ timeout: 20_000 });
  const left = [...made].reverse();
  await Promise.all(
    Array.from({ length: 200 }, async () => {
      for (let one = left.pop(); one !== undefined; one = left.pop())
        await jetstream.publish(`control.accounts.${one.tenant}`, one.payload);
    }),
  );
}

/** Bytes of heap that what is made holds. */
function heapOf(make: () => object): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  const before = process.memoryUsage().heapUsed;
  const held = make();
  collect();
  const bytes = process.memoryUsage().heapUsed - before;
  return Object.keys(held).length < 0 ? 0 : bytes;
}

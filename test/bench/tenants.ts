// G: what limits cost, and whether a tenant that does not care hurts another.
//
// Noisy: one gateway, one projector, one query service. A quiet tenant sends at a steady rate and asks; in half of the windows
// another tenant sends and asks at ten times its limits, from a process of its own with the least priority, and minds no answer.
// Each pair of windows begins with the other kind, because tables grow and queries take longer meanwhile.

import { Agent } from "node:http";
import { setPriority } from "node:os";
import { sleep } from "../../lib/base/loop.ts";
import { post, quantile } from "../../lib/load/client.ts";
import { bodies } from "../../lib/load/generator.ts";
import type { Admission, ManyTenants } from "./admission.ts";
import { admission, manyTenants } from "./admission.ts";
import type { Noise, NoiseMade } from "./noise-child.ts";
import type { BenchOptions } from "./options.ts";
import type { ByProcess } from "./proc.ts";
import { mapValues } from "./proc.ts";
import type { Stage } from "./stage.ts";
import { openStage, since } from "./stage.ts";
import { corpusOf } from "./whole-path.ts";
import { startWorker } from "./worker.ts";

const BATCH_RECORDS = 100;
/** Of the quiet tenant. */
const BODIES_PER_S = 20;
const QUERIES_PER_S = 10;
/** What the noisy tenant may, and how many times that it tries. */
const LIMITS = {
  ingest_records_per_second: 1_000,
  ingest_requests_per_second: 10,
  ingest_bytes_per_second: 1_000_000,
  burst_seconds: 1,
  queries_at_once: 1,
};
const TIMES = 10;
const SQL = "SELECT service, level, count() AS n FROM logs GROUP BY service, level ORDER BY n DESC";
const WARM_BODIES = 200;
const PAUSE_MS = 2_000;
/** The noise is made on a machine of its own, as far as one machine can say so. */
const CLIENT_NICENESS = 19;

export interface Waits {
  readonly ackP50Ms: number;
  readonly ackP99Ms: number;
  readonly queryP50Ms: number;
  readonly queryP99Ms: number;
  readonly acks: number;
  readonly queries: number;
  /** CPU seconds a second, by process: 1 is a whole core. */
  readonly cpuPerS: ByProcess;
}

export interface TenantsBench {
  readonly admission: Admission;
  readonly many: ManyTenants;
  readonly windowS: number;
  readonly without: Waits;
  readonly with: Waits;
  /** What the noisy tenant was answered in all its windows. */
  readonly noise: NoiseMade;
}

interface Samples {
  readonly acksMs: number[];
  readonly queriesMs: number[];
  cpuPerS: ByProcess;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Medians over the windows, so that one hiccup of the machine is not taken for the tenant's doing. */
function waitsOf(windows: readonly Samples[]): Waits {
  const median = (share: number, of: (window: Samples) => readonly number[]): number =>
    quantile(
      windows.map((window) => quantile(of(window), share)),
      0.5,
    );
  const [acks, asked] = [({ acksMs }: Samples) => acksMs, ({ queriesMs }: Samples) => queriesMs];
  return {
    ackP50Ms: median(0.5, acks),
    ackP99Ms: median(0.99, acks),
    queryP50Ms: median(0.5, asked),
    queryP99Ms: median(0.99, asked),
    acks: windows.flatMap(acks).length,
    queries: windows.flatMap(asked).length,
    cpuPerS: mapValues(windows[0]!.cpuPerS, (_, name) => sum(windows.map(({ cpuPerS }) => cpuPerS[name]!)) / windows.length),
  };
}

export async function tenants(options: BenchOptions, env: NodeJS.ProcessEnv): Promise<TenantsBench> {
  const costs = await admission(options);
  const many = await manyTenants(env);
  await using stage = await openStage(options, env, ["projector", "gateway", "query"]);
  const [quiet, loud] = [await tenantOf(stage, "quiet", {}), await tenantOf(stage, "loud", LIMITS)];
  const corpus = { ...corpusOf(options, BATCH_RECORDS * 200), batchRecords: BATCH_RECORDS };
  const all = await Array.fromAsync(bodies(corpus));
  await using child = await startWorker<unknown, NoiseMade>("noise", corpus);
  setPriority(child.pid, CLIENT_NICENESS);
  const noise: Noise = {
    ingestUrl: `${stage.services.gateway!.url}/v1/ingest`,
    queryUrl: `${stage.services.query!.url}/v1/query`,
    headers: loud,
    bodiesPerS: LIMITS.ingest_requests_per_second * TIMES,
    queries: LIMITS.queries_at_once * TIMES,
    sql: SQL,
    seconds: options.tenantSeconds,
  };
  await using quietly = new Quiet(stage, quiet, all);
  await quietly.warm();
  const [without, withNoise]: [Samples[], Samples[]] = [[], []];
  const made: NoiseMade[] = [];
  for (let window = 0; window < 2 * options.tenantRounds; window++) {
    const isLoud = window % 4 === 1 || window % 4 === 2;
    const noisy = isLoud ? child.go(noise) : undefined;
    const samples: Samples = { acksMs: [], queriesMs: [], cpuPerS: {} };
    const before = stage.cpu();
    (isLoud ? withNoise : without).push(samples);
    await quietly.run(options.tenantSeconds * 1_000, samples);
    samples.cpuPerS = mapValues(since(before, stage.cpu()), (seconds) => seconds / options.tenantSeconds);
    if (noisy !== undefined) made.push(await noisy);
    await sleep(PAUSE_MS);
  }
  const total = { ingest: summed(made.map(({ ingest }) => ingest)), query: summed(made.map(({ query }) => query)) };
  if ((total.ingest[429] ?? 0) === 0 || (total.query[429] ?? 0) === 0)
    throw new Error(`the noisy tenant was not refused: ${JSON.stringify(total)}`);
  return {
    admission: costs,
    many,
    windowS: options.tenantSeconds,
    without: waitsOf(without),
    with: waitsOf(withNoise),
    noise: total,
  };
}

function summed(counts: readonly Readonly<Record<number, number>>[]): Record<number, number> {
  const total: Record<number, number> = {};
  for (const [status, count] of counts.flatMap((one) => Object.entries(one))) total[Number(status)] = (total[Number(status)] ?? 0) + count;
  return total;
}

/** Makes a tenant with a key. Returns the headers of its calls. @throws Error when an answer is not as it should be */
async function tenantOf(stage: Stage, tenant: string, limits: object): Promise<Record<string, string>> {
  async function call(method: string, path: string, body: object): Promise<{ key?: string }> {
    const headers = { authorization: `Bearer ${stage.key}`, "content-type": "application/json" };
    const answer = await fetch(`${stage.services.query!.url}${path}`, { method, headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as { key?: string };
  }
  await call("POST", "/v1/tenants", { tenant });
  await call("PATCH", `/v1/tenants/${tenant}/limits`, { limits });
  const { key } = await call("POST", `/v1/tenants/${tenant}/keys`, { scopes: ["ingest", "query"] });
  return { authorization: `Bearer ${key}`, "content-type": "application/x-ndjson" };
}

/** The tenant whose waits are measured: an open schedule, so that a stall counts for whoever waits behind it. */
class Quiet implements AsyncDisposable {
  readonly #stage: Stage;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #bodies: readonly Buffer[];
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });
  #next = 0;

  constructor(stage: Stage, headers: Readonly<Record<string, string>>, all: readonly Buffer[]) {
    this.#stage = stage;
    this.#headers = headers;
    this.#bodies = all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
  }

  async warm(): Promise<void> {
    for (let tries = 0; (await this.#call("gateway", "/v1/ingest", this.#bodies[0]!)) !== 200; tries++) {
      if (tries > 100) throw new Error("the gateway does not get to know the key");
      await sleep(50);
    }
    for (let i = 0; i < WARM_BODIES; i++) await this.#send();
    for (let i = 0; i < 20; i++) await this.#ask();
  }

  async run(forMs: number, samples: Samples): Promise<void> {
    await Promise.all([
      this.#paced(forMs, BODIES_PER_S, samples.acksMs, () => this.#send()),
      this.#paced(forMs, QUERIES_PER_S, samples.queriesMs, () => this.#ask()),
    ]);
  }

  async #paced(forMs: number, perS: number, tookMs: number[], work: () => Promise<void>): Promise<void> {
    const begin = performance.now();
    const running = Array.from({ length: Math.floor((forMs / 1_000) * perS) }, async (_, i) => {
      const dueMs = begin + (i * 1_000) / perS;
      await sleep(Math.max(0, dueMs - performance.now()));
      await work();
      tookMs.push(performance.now() - dueMs);
    });
    await Promise.all(running);
  }

  async #send(): Promise<void> {
    const status = await this.#call("gateway", "/v1/ingest", this.#bodies[this.#next++ % this.#bodies.length]!);
    if (status !== 200) throw new Error(`the quiet tenant's records are answered with ${status}`);
  }

  async #ask(): Promise<void> {
    const status = await this.#call("query", "/v1/query", Buffer.from(SQL), "text/plain");
    if (status !== 200) throw new Error(`the quiet tenant's query is answered with ${status}`);
  }

  async #call(service: "gateway" | "query", path: string, body: Buffer, type = "application/x-ndjson"): Promise<number> {
    const headers = { ...this.#headers, "content-type": type };
    return (await post(this.#agent, `${this.#stage.services[service]!.url}${path}`, headers, body)).status;
  }
}

// A tenant that does not care: sends at a rate and asks without end, whatever it is answered, for some seconds.

import { Agent } from "node:http";
import { sleep } from "../../lib/base/loop.ts";
import { post } from "../../lib/load/client.ts";
import type { CorpusOptions } from "../../lib/load/generator.ts";
import { bodies } from "../../lib/load/generator.ts";
import { runWorker } from "./worker.ts";

export interface Noise {
  readonly ingestUrl: string;
  readonly queryUrl: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly bodiesPerS: number;
  /** Queries that it tries to run at once. */
  readonly queries: number;
  readonly sql: string;
  readonly seconds: number;
}

/** How many answers had which status. */
export interface NoiseMade {
  readonly ingest: Readonly<Record<number, number>>;
  readonly query: Readonly<Record<number, number>>;
}

/** Between an answer and the next query: a tenth of what Retry-After says. */
const QUERY_PAUSE_MS = 100;
const CONNECTIONS = 32;

async function noise(all: readonly Buffer[], order: Noise): Promise<NoiseMade> {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  const made: { ingest: Record<number, number>; query: Record<number, number> } = { ingest: {}, query: {} };
  const count = (kind: "ingest" | "query", status: number): void => {
    made[kind][status] = (made[kind][status] ?? 0) + 1;
  };
  const endMs = performance.now() + order.seconds * 1_000;
  const sending: Promise<void>[] = [];
  async function send(): Promise<void> {
    const begin = performance.now();
    for (let i = 0; performance.now() < endMs; i++) {
      const dueMs = begin + (i * 1_000) / order.bodiesPerS;
      if (dueMs > performance.now()) await sleep(dueMs - performance.now());
      sending.push(post(agent, order.ingestUrl, order.headers, all[i % all.length]!).then(({ status }) => count("ingest", status)));
    }
  }
  async function ask(): Promise<void> {
    while (performance.now() < endMs) {
      const { status } = await post(agent, order.queryUrl, { ...order.headers, "Content-Type": "text/plain" }, Buffer.from(order.sql));
      count("query", status);
      await sleep(QUERY_PAUSE_MS);
    }
  }
  try {
    await Promise.all([send(), ...Array.from({ length: order.queries }, ask)]);
    await Promise.all(sending);
  } finally {
    agent.destroy();
  }
  return made;
}

runWorker(async (corpus: CorpusOptions) => {
  const all = await Array.fromAsync(bodies(corpus));
  return { state: all, report: { bodies: all.length } };
}, noise);

// A load client that costs little: bodies made beforehand, keep-alive connections, one request at a time on each.
//
// Promises: with a rate the schedule is open: a request's latency counts from the time it should have left, so a server
// that stalls cannot hide it; 429 and 503 are sent again after their Retry-After, and counted; anything else that is
// not 2xx ends the run. Memory is that of the bodies and a number a request.

import { Agent, request } from "node:http";
import { sleep } from "../base/loop.ts";

export interface LoadTarget {
  /** Where to POST. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly connections: number;
  /** Bodies a second; undefined sends as fast as the answers come. */
  readonly bodiesPerS?: number;
}

export interface LoadResult {
  readonly seconds: number;
  /** Of each body: milliseconds from its (scheduled) start to its acknowledgement. */
  readonly latenciesMs: number[];
  /** Of each body: when it was acknowledged, milliseconds since the epoch. */
  readonly ackedAtMs: number[];
  /** How often the server said 429 or 503. */
  readonly refusals: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly retryAfterS: number | undefined;
  readonly body: Buffer;
}

/** One POST over the agent's connections. @throws Error of the connection */
export async function post(agent: Agent, url: string, headers: Readonly<Record<string, string>>, body: Buffer): Promise<HttpAnswer> {
  return await new Promise((resolve, reject) => {
    const sent = request(url, { method: "POST", agent, headers: { ...headers, "Content-Length": String(body.length) } }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () => {
        if (!answer.complete) return reject(new Error(`${url} broke off its answer`));
        const retryAfter = Number(answer.headers["retry-after"]);
        resolve({
          status: answer.statusCode ?? 0,
          retryAfterS: Number.isFinite(retryAfter) ? retryAfter : undefined,
          body: Buffer.concat(chunks),
        });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

const RETRY_AFTER_DEFAULT_S = 0.1;
const RETRIES_MAX = 200;

const epochMs = (): number => performance.timeOrigin + performance.now();

/** Sends every body once and waits for all acknowledgements. @throws Error on the first answer that a retry cannot mend */
export async function sendAll(all: readonly Buffer[], target: LoadTarget): Promise<LoadResult> {
  const agent = new Agent({ keepAlive: true, maxSockets: target.connections });
  const latenciesMs = new Array<number>(all.length).fill(0);
  const ackedAtMs = new Array<number>(all.length).fill(0);
  const begin = performance.now();
  let next = 0;
  let refusals = 0;

  async function sendOne(index: number): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const answer = await post(agent, target.url, target.headers, all[index]!);
      if (answer.status >= 200 && answer.status < 300) return;
      const why = `${target.url} answered ${answer.status}: ${answer.body.toString("utf8", 0, 300)}`;
      if ((answer.status !== 429 && answer.status !== 503) || attempt >= RETRIES_MAX) throw new Error(why);
      refusals++;
      await sleep((answer.retryAfterS ?? RETRY_AFTER_DEFAULT_S) * 1_000);
    }
  }

  async function connection(): Promise<void> {
    for (;;) {
      const index = next++;
      if (index >= all.length) return;
      const dueMs = target.bodiesPerS === undefined ? performance.now() : begin + (index * 1_000) / target.bodiesPerS;
      if (dueMs > performance.now()) await sleep(dueMs - performance.now());
      await sendOne(index);
      latenciesMs[index] = performance.now() - dueMs;
      ackedAtMs[index] = epochMs();
    }
  }

  try {
    await Promise.all(Array.from({ length: target.connections }, connection));
  } finally {
    agent.destroy();
  }
  return { seconds: (performance.now() - begin) / 1_000, latenciesMs, ackedAtMs, refusals };
}

/** The value below which a share of the numbers lies (nearest rank). NaN for none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

// A faulty network in front of ClickHouse's HTTP port.
//
// It sees requests whole, so that it can lose exactly what a test wants lost: the answer of an insert that the engine has
// carried out, a connection at a random moment, a request that arrives long after its sender gave up.

import type { IncomingMessage, ServerResponse } from "node:http";
import { Agent, createServer, request } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { sleep } from "../../lib/base/loop.ts";

export interface Faults {
  /** Loses the answer of this insert, which the engine carries out. */
  dropAnswer?: (insert: number) => boolean;
  /** Cuts the connection of this request at a random moment. */
  reset?: (request: number) => boolean;
  /** Takes this insert whole, cuts the connection, and hands it to the engine so many milliseconds later. */
  late?: (insert: number) => number;
  /** Before each request is passed on. */
  latencyMs?: number;
  /** Answers nothing and refuses connections. */
  down?: boolean;
  /** Cuts the connection of this insert before the engine hears of it. */
  refuse?: (insert: number) => boolean;
  /** Takes X-ClickHouse-Summary away from answers, as a load balancer may. */
  withoutSummary?: boolean;
  /** Added to the URL of inserts, such as "max_memory_usage=1000". */
  insertSettings?: string;
}

export interface SeenInsert {
  readonly token: string;
  readonly queryId: string;
}

export class ClickhouseProxy implements AsyncDisposable {
  readonly url: string;
  faults: Faults = {};
  requests = 0;
  inserts = 0;
  dropped = 0;
  resets = 0;
  readonly seen: SeenInsert[] = [];
  readonly #close: () => Promise<void>;

  private constructor(url: string, close: () => Promise<void>) {
    this.url = url;
    this.#close = close;
  }

  static async open(target: string): Promise<ClickhouseProxy> {
    const upstream = new URL(target);
    const agent = new Agent({ keepAlive: true, maxSockets: 256 });
    const sockets = new Set<Socket>();
    let proxy: ClickhouseProxy;
    const server = createServer({ requestTimeout: 0 }, (incoming, outgoing) => {
      incoming.on("error", () => undefined);
      outgoing.on("error", () => undefined);
      proxy.#pass(incoming, outgoing, upstream, agent).catch(() => {
        incoming.socket.destroy();
      });
    });
    server.on("connection", (socket) => {
      if (proxy.faults.down) {
        socket.destroy();
        return;
      }
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      socket.on("error", () => undefined);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    proxy = new ClickhouseProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, async () => {
      for (const socket of sockets) socket.destroy();
      agent.destroy();
      await new Promise((resolve) => server.close(resolve));
    });
    return proxy;
  }

  async #pass(incoming: IncomingMessage, outgoing: ServerResponse, upstream: URL, agent: Agent): Promise<void> {
    const number = this.requests++;
    const query = new URL(incoming.url!, upstream).searchParams;
    const isInsert = /^\s*INSERT\b/i.test(query.get("query") ?? "") && query.has("insert_deduplication_token");
    const insert = isInsert ? this.inserts++ : -1;
    if (isInsert) this.seen.push({ token: query.get("insert_deduplication_token")!, queryId: query.get("query_id") ?? "" });
    if (this.faults.down || (isInsert && this.faults.refuse?.(insert))) {
      incoming.socket.destroy();
      return;
    }
    const reset = this.faults.reset?.(number) ?? false;
    const stage = reset ? number % 3 : -1;
    if (reset) this.resets++;
    if (stage === 0) {
      incoming.socket.destroy();
      return;
    }
    if (this.faults.latencyMs) await sleep(this.faults.latencyMs);
    const lateMs = isInsert ? (this.faults.late?.(insert) ?? 0) : 0;
    const drop = isInsert && (this.faults.dropAnswer?.(insert) ?? false);
    const path = isInsert && this.faults.insertSettings ? `${incoming.url}&${this.faults.insertSettings}` : incoming.url!;
    const head = { agent, host: upstream.hostname, port: upstream.port, method: incoming.method, path, headers: incoming.headers };
    if (lateMs > 0) {
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      incoming.socket.destroy();
      await sleep(lateMs);
      await new Promise<void>((resolve) => {
        const sent = request({ ...head, headers: { ...incoming.headers, "transfer-encoding": "chunked" } }, (answer) => {
          answer.resume();
          answer.on("close", resolve);
        });
        sent.on("error", () => resolve());
        sent.end(Buffer.concat(chunks));
      });
      return;
    }
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request(head, resolve);
      sent.on("error", reject);
      incoming.pipe(sent);
      incoming.on("error", () => sent.destroy());
      // A client that leaves takes its request with it, as through a router.
      incoming.on("close", () => incoming.complete || sent.destroy());
      if (stage === 1) setTimeout(() => incoming.socket.destroy(), 1);
    });
    answer.on("error", () => undefined);
    if (drop || stage === 2) {
      if (drop) this.dropped++;
      answer.resume();
      await new Promise((resolve) => answer.on("close", resolve));
      incoming.socket.destroy();
      return;
    }
    if (this.faults.withoutSummary) delete answer.headers["x-clickhouse-summary"];
    outgoing.writeHead(answer.statusCode!, answer.headers);
    answer.pipe(outgoing);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

// The stack's own logs, shipped through its own ingest as service `relog`.
//
// Promises: never blocks and never grows past its bound: the oldest lines go first, and how many went is a record of the next
// batch; a batch is kept, and sent again under the same idempotency key, until the gateway takes it; at most one call a
// second, and the gateway logs no successful call, so shipping does not feed itself.

import { randomUUID } from "node:crypto";

const BUFFER_BYTES_MAX = 8 * 2 ** 20;
const BATCH_BYTES_MAX = 1 * 2 ** 20;
const FLUSH_INTERVAL_MS = 1_000;
const POST_TIMEOUT_MS = 10_000;
const LAST_FLUSH_MS = 2_000;
const RETRY_STATUS: readonly number[] = [408, 409, 425, 429];

const NATS_LINE = /^\[\d+\] (\d{4})\/(\d\d)\/(\d\d) (\d\d:\d\d:\d\d\.\d+)(?: UTC)? \[(\w+)\] (.*)$/;
const NATS_LEVELS: Record<string, string> = { TRC: "trace", DBG: "debug", INF: "info", WRN: "warn", ERR: "error", FTL: "fatal" };

/** ClickHouse's `date_time`: seconds since the epoch with a fraction, as text. */
function clickhouseTime(text: string): string {
  const [seconds, fraction = "0"] = text.split(".");
  return `${new Date(Number(seconds) * 1_000).toISOString().slice(0, 19)}.${fraction}Z`;
}

/** One line of any process as a record. nats-server logs in UTC (ops/nats/limits.conf); relog and ClickHouse log JSON. */
export function toRecord(component: string, line: string, now: Date): Record<string, unknown> {
  const base = { timestamp: now.toISOString(), level: "info", component };
  const nats = NATS_LINE.exec(line);
  if (nats) {
    const [, year, month, day, time, level, message] = nats;
    return { ...base, timestamp: `${year}-${month}-${day}T${time}Z`, level: NATS_LEVELS[level!] ?? "info", message, service: "relog" };
  }
  if (line.startsWith("{")) {
    try {
      const { date_time_utc: _utc, date_time, ...fields } = JSON.parse(line) as Record<string, unknown>;
      const timestamp = typeof date_time === "string" ? { timestamp: clickhouseTime(date_time) } : {};
      const level = typeof fields.level === "string" ? { level: fields.level.toLowerCase() } : {};
      return { ...base, ...fields, ...timestamp, ...level, service: "relog" };
    } catch {
      // Cut at the line limit, or never JSON: it is text then.
      return { ...base, message: line, service: "relog" };
    }
  }
  return { ...base, message: line, service: "relog" };
}

interface Batch {
  readonly idempotencyKey: string;
  readonly body: string;
  readonly lines: number;
  readonly bytes: number;
  /** How many dropped lines this batch reports. */
  readonly reports: number;
}

export class OwnLogs implements AsyncDisposable {
  readonly #url: string;
  readonly #key: string;
  readonly #bufferBytesMax: number;
  readonly #timer: NodeJS.Timeout;
  readonly #lines: string[] = [];
  #bytes = 0;
  #dropped = 0;
  #reported = 0;
  #batch: Batch | undefined;
  #sending: Promise<boolean> | undefined;

  constructor(ingestUrl: string, key: string, bufferBytesMax = BUFFER_BYTES_MAX) {
    this.#url = `${ingestUrl}/v1/ingest`;
    this.#key = key;
    this.#bufferBytesMax = bufferBytesMax;
    this.#timer = setInterval(() => void this.flush(), FLUSH_INTERVAL_MS);
    this.#timer.unref();
  }

  /** Lines that were never sent, since the start. */
  get dropped(): number {
    return this.#dropped;
  }

  add(component: string, line: string): void {
    const text = `${JSON.stringify(toRecord(component, line, new Date()))}\n`;
    this.#lines.push(text);
    this.#bytes += Buffer.byteLength(text);
    while (this.#bytes > this.#bufferBytesMax && this.#lines.length > 0) {
      this.#bytes -= Buffer.byteLength(this.#lines.shift()!);
      this.#dropped += 1;
    }
  }

  /** Sends at most one batch; true when something was taken by the gateway. Calls at the same time share one sending. */
  async flush(): Promise<boolean> {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined;
    });
    return await this.#sending;
  }

  #nextBatch(): Batch | undefined {
    const reports = this.#dropped - this.#reported;
    const taken: string[] = [];
    let bytes = 0;
    while (this.#lines.length > 0 && bytes < BATCH_BYTES_MAX) {
      const line = this.#lines.shift()!;
      taken.push(line);
      bytes += Buffer.byteLength(line);
    }
    if (taken.length === 0 && reports === 0) return undefined;
    const message = `${reports} of the stack's own log lines were dropped; .relog/logs may have them`;
    const report = { ...toRecord("dev", message, new Date()), level: "warn", dropped: reports };
    const body = (reports > 0 ? `${JSON.stringify(report)}\n` : "") + taken.join("");
    return { idempotencyKey: randomUUID(), body, lines: taken.length, bytes, reports };
  }

  async #send(): Promise<boolean> {
    this.#batch ??= this.#nextBatch();
    const batch = this.#batch;
    if (batch === undefined) return false;
    const headers = {
      authorization: `Bearer ${this.#key}`,
      "content-type": "application/x-ndjson",
      "idempotency-key": batch.idempotencyKey,
      "user-agent": "relog-own-logs",
    };
    const signal = AbortSignal.timeout(POST_TIMEOUT_MS);
    const status = await fetch(this.#url, { method: "POST", headers, body: batch.body, signal }).then(
      async (answer) => {
        await answer.arrayBuffer();
        return answer.status;
      },
      () => 503,
    );
    // Not taken: it waits, and still counts as buffered.
    if (status >= 500 || RETRY_STATUS.includes(status)) return false;
    this.#batch = undefined;
    this.#bytes -= batch.bytes;
    if (status >= 400) this.#dropped += batch.lines;
    else this.#reported += batch.reports;
    return status < 400;
  }

  /** Stops the timer and sends what is left, within two seconds. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    const end = performance.now() + LAST_FLUSH_MS;
    while (performance.now() < end && (await this.flush()));
  }
}

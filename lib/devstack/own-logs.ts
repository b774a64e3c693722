// The stack's own logs, shipped through its own ingest.
//
// Promises: never blocks and never grows past its bound: the oldest go first and are counted; kept until the gateway takes
// them; a gateway's line about the shipping itself is not shipped, which would go round for ever.

const BUFFER_BYTES_MAX = 8 * 2 ** 20;
const BATCH_BYTES_MAX = 1 * 2 ** 20;
const FLUSH_INTERVAL_MS = 1_000;
const POST_TIMEOUT_MS = 10_000;
export const OWN_LOGS_AGENT = "relog-own-logs";

const NATS_LINE = /^\[\d+\] (\d{4})\/(\d\d)\/(\d\d) (\d\d:\d\d:\d\d\.\d+)(?: UTC)? \[(\w+)\] (.*)$/;
const NATS_LEVELS: Record<string, string> = { TRC: "trace", DBG: "debug", INF: "info", WRN: "warn", ERR: "error", FTL: "fatal" };

/** One line of any process as a record. nats-server logs in UTC (ops/nats/limits.conf); relog and ClickHouse log JSON. */
export function toRecord(component: string, line: string, now: Date): Record<string, unknown> {
  const base = { timestamp: now.toISOString(), level: "info", service: "relog", component };
  const nats = NATS_LINE.exec(line);
  if (nats) {
    const [, year, month, day, time, level, message] = nats;
    return { ...base, timestamp: `${year}-${month}-${day}T${time}Z`, level: NATS_LEVELS[level!] ?? "info", message };
  }
  if (line.startsWith("{")) {
    try {
      const { date_time_utc: _utc, date_time, ...fields } = JSON.parse(line) as Record<string, unknown>;
      const timestamp = typeof date_time === "string" ? { timestamp: new Date(Number(date_time) * 1_000).toISOString() } : {};
      const level = typeof fields.level === "string" ? { level: fields.level.toLowerCase() } : {};
      return { ...base, ...fields, ...timestamp, ...level };
    } catch {
      return { ...base, message: line };
    }
  }
  return { ...base, message: line };
}

export class OwnLogs implements AsyncDisposable {
  readonly #url: string;
  readonly #key: string;
  readonly #timer: NodeJS.Timeout;
  #lines: string[] = [];
  #bytes = 0;
  #dropped = 0;
  #sending: Promise<void> | undefined;

  constructor(ingestUrl: string, key: string) {
    this.#url = `${ingestUrl}/v1/ingest`;
    this.#key = key;
    this.#timer = setInterval(() => void this.flush(), FLUSH_INTERVAL_MS);
    this.#timer.unref();
  }

  get dropped(): number {
    return this.#dropped;
  }

  add(component: string, line: string): void {
    if (line.includes(OWN_LOGS_AGENT)) return;
    const text = `${JSON.stringify(toRecord(component, line, new Date()))}\n`;
    this.#lines.push(text);
    this.#bytes += Buffer.byteLength(text);
    while (this.#bytes > BUFFER_BYTES_MAX) this.#drop();
  }

  #drop(): void {
    this.#bytes -= Buffer.byteLength(this.#lines.shift() ?? "");
    this.#dropped += 1;
  }

  async flush(): Promise<void> {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined;
    });
    await this.#sending;
  }

  async #send(): Promise<void> {
    const batch: string[] = [];
    let bytes = 0;
    while (this.#lines.length > 0 && bytes < BATCH_BYTES_MAX) {
      const line = this.#lines.shift()!;
      batch.push(line);
      bytes += Buffer.byteLength(line);
    }
    if (batch.length === 0) return;
    this.#bytes -= bytes;
    const headers = { authorization: `Bearer ${this.#key}`, "content-type": "application/x-ndjson", "user-agent": OWN_LOGS_AGENT };
    const signal = AbortSignal.timeout(POST_TIMEOUT_MS);
    const status = await fetch(this.#url, { method: "POST", headers, body: batch.join(""), signal }).then(
      (a) => a.status,
      () => 503,
    );
    if (status === 429 || status >= 500) {
      this.#lines = [...batch, ...this.#lines];
      this.#bytes += bytes;
    } else if (status >= 400) this.#dropped += batch.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }
}

// The corpus of the bench: log records as NDJSON, in batches.
//
// Promises: the same seed and start give the same bytes, however they are cut into batches; a record has about 365 bytes
// with its newline; time advances by a millisecond a record on average. A file of NDJSON can stand in for it.

import { createReadStream } from "node:fs";
import { Random } from "./random.ts";
import type { Service } from "./templates.ts";
import { PLANTED, rareLine, SERVICES } from "./templates.ts";

export interface CorpusOptions {
  readonly records: number;
  readonly batchRecords: number;
  readonly seed: number;
  /** Time of the first record, milliseconds since the epoch. */
  readonly startMs: number;
  /** NDJSON to use instead; read from its start again when it is too short. */
  readonly file?: string;
  /** Time of a probe record in the place of each batch's first; see `probeLine`. */
  readonly probesFromMs?: number;
}

export const PROBE_SERVICE = "bench-probe";

const HOSTS = Array.from({ length: 64 }, (_, i) => `host-${String(i).padStart(3, "0")}`);
const REGIONS = ["eu-west-1", "eu-central-1", "us-east-1"];
const STATUSES = [200, 200, 200, 201, 204, 301, 400, 404, 500, 503];
const USERS_MAX = 100_000;
const DURATION_MS_MAX = 5_000;
/** Doubled, so that the mean advance is one millisecond. */
const ADVANCE_NS_MAX = 2_000_000;
const BY_WEIGHT: readonly Service[] = SERVICES.flatMap((service) => Array.from({ length: service.weight }, () => service));
const RARE_SERVICE = SERVICES.find((service) => service.name === PLANTED.rareWords.service)!;

/** 10% debug, 70 info, 14 warn, 5 error, 1 fatal, by a number below 100. */
function levelOf(percent: number): string {
  return percent < 10 ? "debug" : percent < 80 ? "info" : percent < 94 ? "warn" : percent < 99 ? "error" : "fatal";
}

/** Writes RFC 3339 times with nanoseconds; the text of the second is kept. */
class Clock {
  #second: number;
  #nanosecond = 0;
  #text: string;

  constructor(startMs: number) {
    this.#second = Math.floor(startMs / 1_000);
    this.#text = this.#textOfSecond();
  }

  #textOfSecond(): string {
    return new Date(this.#second * 1_000).toISOString().slice(0, 19);
  }

  next(advanceNs: number): string {
    this.#nanosecond += advanceNs;
    if (this.#nanosecond >= 1e9) {
      this.#nanosecond -= 1e9;
      this.#second++;
      this.#text = this.#textOfSecond();
    }
    return `${this.#text}.${String(this.#nanosecond).padStart(9, "0")}Z`;
  }
}

/** Makes one line after the other. */
export class LineGenerator {
  readonly #random: Random;
  readonly #clock: Clock;

  constructor(seed: number, startMs: number) {
    this.#random = new Random(seed);
    this.#clock = new Clock(startMs);
  }

  /** The next record without a newline. */
  next(): string {
    const r = this.#random;
    const time = this.#clock.next(r.below(ADVANCE_NS_MAX));
    const percent = r.below(100);
    const rare = rareLine(r.below(1_000_000), r);
    const service = rare === undefined ? r.pick(BY_WEIGHT) : RARE_SERVICE;
    const lines = percent < 80 ? service.calm : percent < 94 ? service.warn : service.error;
    const message = JSON.stringify(rare ?? r.pick(lines)(r));
    return (
      `{"timestamp":"${time}","level":"${levelOf(percent)}","service":"${service.name}","host":"${r.pick(HOSTS)}","message":${message},` +
      `"attrs":{"request_id":"${r.hex(8)}${r.hex(8)}","user_id":"${r.skewed(USERS_MAX, 3)}","status":${r.pick(STATUSES)},` +
      `"duration_ms":${r.skewed(DURATION_MS_MAX, 4)},"region":"${r.pick(REGIONS)}"}}`
    );
  }
}

/** A record that says which batch it came with: probe n has the time `probesFromMs` + n milliseconds. */
function probeLine(options: CorpusOptions, batch: number): string {
  const time = new Date(options.probesFromMs! + batch).toISOString();
  return `{"timestamp":"${time}","level":"info","service":"${PROBE_SERVICE}","host":"bench","message":"probe ${batch}"}`;
}

/** The corpus as bodies of `batchRecords` lines; the last may be shorter. @throws Error when the file holds no line */
export async function* bodies(options: CorpusOptions): AsyncGenerator<Buffer> {
  const { records, batchRecords } = options;
  const source = options.file === undefined ? undefined : linesForEver(options.file);
  const generator = new LineGenerator(options.seed, options.startMs);
  for (let at = 0, batch = 0; at < records; at += batchRecords, batch++) {
    const lines: string[] = [];
    for (let i = Math.min(batchRecords, records - at); i > 0; i--)
      lines.push(source === undefined ? generator.next() : (await source.next()).value!);
    if (options.probesFromMs !== undefined) lines[0] = probeLine(options, batch);
    yield Buffer.from(`${lines.join("\n")}\n`);
  }
  await source?.return(undefined);
}

async function* linesForEver(file: string): AsyncGenerator<string, undefined> {
  for (;;) {
    let rest = "";
    let found = false;
    for await (const chunk of createReadStream(file, { encoding: "utf8", highWaterMark: 2 ** 20 })) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        if (line === "") continue;
        found = true;
        yield line;
      }
    }
    if (rest !== "") yield rest;
    else if (!found) throw new Error(`${file} holds no line`);
  }
}

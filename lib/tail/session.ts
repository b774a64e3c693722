// One live tail: from the tenant's messages in the streams to what waits for its reader.
//
// Promises: nothing of another tenant, by three walls (the subject that is read, the envelope, each record); records of a shard
// in the stream's order, each once; what was stored before the tail began, or while its stream could not be read, is paced to
// its reader, never skipped; what comes live waits for a slow reader, and for the process's rates, only while it is fresh, then
// it is skipped, counted and said. What the stream itself was late with is as fresh as what was just stored. One batch at a
// time is open.

import { setImmediate as turn } from "node:timers/promises";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { sleep } from "../base/loop.ts";
import type { Logger } from "../base/telemetry.ts";
import type { DecodedRecord } from "../event/decode.ts";
import { decodeBatch } from "../event/decode.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { readEnvelope } from "../event/envelope.ts";
import type { ShardHead, TailSource } from "../streams/tail.ts";
import type { Place } from "./cursor.ts";
import { tagOf, writeCursor } from "./cursor.ts";
import { recordLine } from "./encode.ts";
import type { TailRequest } from "./filter.ts";
import type { TailLimits } from "./limits.ts";
import { TailQueue } from "./queue.ts";
import { Rate } from "./rate.ts";

/** Why a record was not sent, as the metric says it. */
export type SkipReason = "slow_reader" | "rate" | "unopened" | "unreadable" | "foreign";

export interface SessionPorts {
  readonly source: TailSource;
  readonly clock: Clock;
  readonly log: Logger;
  /** Records that this tail may open a second now. */
  readonly openedPerSecond: () => number;
  readonly sent: (records: number) => void;
  readonly skipped: (reason: SkipReason, records: number) => void;
}

/** Where the shards are, and where this tail begins in each. */
export interface TailStart {
  readonly heads: readonly ShardHead[];
  readonly places: readonly Place[];
  /** What of the places the streams do not hold any more. */
  readonly gaps: readonly object[];
}

interface Shard {
  place: Place;
  /** What is stored up to here was there before the tail began, or its stream could be read again. */
  historyEnd: number;
}

/** A message that is being sent. */
interface Sending {
  readonly shard: number;
  readonly seq: number;
  /** Since when it waits for this tail: when it was stored, or later when the stream gave it late. Milliseconds since the epoch. */
  readonly sinceMs: number;
  /** Whether it is paced however long it waits. */
  readonly history: boolean;
  readonly signal: AbortSignal;
}

/** Records between two looks at whatever else this process has to do. */
const RECORDS_AT_ONCE = 500;

export class TailSession {
  readonly queue: TailQueue;
  readonly #ports: SessionPorts;
  readonly #limits: TailLimits;
  readonly #tenant: string;
  readonly #request: TailRequest;
  readonly #shards: Shard[];
  readonly #rate: Rate;
  readonly #opened: Rate;
  /** Whether the tail asked for fewer records: of what comes live it wants the newest, and none of it late. */
  readonly #sampled: boolean;
  readonly #withCursor: boolean;
  /** The batch that is open, and those that wait for it. */
  #open: Promise<void> = Promise.resolve();
  #faulted = false;

  constructor(ports: SessionPorts, limits: TailLimits, tenant: string, request: TailRequest, start: TailStart, withCursor: boolean) {
    [this.#ports, this.#limits, this.#tenant, this.#request] = [ports, limits, tenant, request];
    this.#withCursor = withCursor;
    this.queue = new TailQueue(limits);
    this.#shards = start.heads.map(({ lastSeq }, i) => ({ place: start.places[i]!, historyEnd: lastSeq }));
    const rate = Math.min(request.limitPerSecond ?? Number.POSITIVE_INFINITY, limits.recordsPerSecond);
    this.#sampled = rate < limits.recordsPerSecond;
    this.#rate = new Rate(ports.clock, () => rate);
    this.#opened = new Rate(ports.clock, ports.openedPerSecond);
    for (const gap of start.gaps) this.queue.note("gap", { gap });
  }

  /** Where it stands: behind everything that went into the queue. */
  get cursor(): string {
    return writeCursor(this.#shards.map(({ place }) => place));
  }

  /** Follows every shard until the signal aborts. @throws Error when that is a defect of ours */
  async run(heads: readonly ShardHead[], signal: AbortSignal): Promise<void> {
    await Promise.all(heads.map(({ created }, shard) => this.#follow(shard, created, signal)));
  }

  async #follow(shard: number, created: string, signal: AbortSignal): Promise<void> {
    const state = this.#shards[shard]!;
    const onFault = (why: string | undefined): void => this.#fault(shard, why);
    for await (const item of this.#ports.source.follow(this.#tenant, shard, created, state.place.seq, onFault, signal)) {
      switch (item.kind) {
        case "message": {
          const { message, takenMs } = item;
          const sinceMs = Math.max(message.storedMs, this.#ports.clock.now() - takenMs);
          const before = this.#open;
          this.#open = before.then(() => this.#take(shard, message, sinceMs, signal));
          await this.#open;
          break;
        }
        case "resumed":
          state.historyEnd = item.lastSeq;
          break;
        case "made_again":
          state.place = { tag: tagOf(item.created), seq: 1, line: 0 };
          state.historyEnd = 0;
          this.queue.note("gap", { gap: { shard, why: "the stream was made again" } });
          break;
        default:
          throw item satisfies never;
      }
    }
  }

  #fault(shard: number, why: string | undefined): void {
    if (why !== undefined && !this.#faulted) this.#ports.log.warn({ shard, why }, "a live tail waits for its stream");
    this.#faulted = why !== undefined;
  }

  async #take(shard: number, message: StoredMessage, sinceMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const state = this.#shards[shard]!;
    const envelope = readEnvelope(message.header);
    const passed = state.place.seq === message.seq ? state.place.line : 0;
    const records = "fault" in envelope ? 1 : Math.max(0, envelope.records - passed);
    const next = { tag: state.place.tag, seq: message.seq + 1, line: 0 };
    if (!("fault" in envelope) && envelope.tenant !== this.#tenant) {
      this.#foreign(shard, message.seq, records);
      state.place = next;
      return;
    }
    const sending = { shard, seq: message.seq, sinceMs, history: message.seq <= state.historyEnd, signal };
    if (!(await this.#mayOpen(records, sending))) {
      if (signal.aborted) return;
      this.queue.skip({ unread: records });
      this.#ports.skipped("unopened", records);
    } else {
      const decoded = await this.#decode(shard, message, records);
      if (!(await this.#sendAll(sending, decoded, passed))) return;
    }
    state.place = next;
  }

  async #mayOpen(records: number, sending: Sending): Promise<boolean> {
    while (this.queue.full) if (!(await this.#room(sending))) return false;
    return await this.#paced(this.#opened, records, sending);
  }

  /** Whether the tail has ended. */
  #over({ signal }: Sending): boolean {
    return signal.aborted || this.queue.closed;
  }

  /** How long it may wait, milliseconds; nothing when it has become too old, or the tail has ended. */
  #freshMs(sending: Sending): number {
    if (this.#over(sending)) return 0;
    const { history, sinceMs } = sending;
    return history ? this.#limits.lifeMaxMs : sinceMs + this.#limits.lagMaxMs - this.#ports.clock.now();
  }

  /** Waits for a rate; false when what is to be sent has become too old for that, or the tail has ended. */
  async #paced(rate: Rate, amount: number, sending: Sending): Promise<boolean> {
    while (!rate.tryTake(amount)) {
      const freshMs = this.#freshMs(sending);
      if (freshMs <= 0) return false;
      await sleep(Math.min(rate.waitMs(), freshMs), sending.signal);
    }
    return !this.#over(sending);
  }

  /** Waits until the reader has taken something; false when what is to be sent has become too old for that, or the tail has ended. */
  async #room(sending: Sending): Promise<boolean> {
    const freshMs = this.#freshMs(sending);
    if (freshMs <= 0) return false;
    const enough = new AbortController();
    const taken = await Promise.race([this.queue.taken().then(() => true), sleep(freshMs, enough.signal).then(() => false)]);
    enough.abort();
    return taken && !this.#over(sending);
  }

  async #decode(shard: number, message: StoredMessage, records: number): Promise<DecodedRecord[]> {
    try {
      return await decodeBatch(message.payload, this.#limits.blockBytesMax);
    } catch (error) {
      // The projector parks such a message as a dead letter, with the reason.
      this.#ports.log.warn({ shard, seq: message.seq, why: messageOf(error) }, "a live tail cannot open a message");
      this.queue.skip({ unread: records });
      this.#ports.skipped("unreadable", records);
      return [];
    }
  }

  /** False when the tail ended meanwhile. */
  async #sendAll(sending: Sending, decoded: readonly DecodedRecord[], passed: number): Promise<boolean> {
    const { shard, seq, signal } = sending;
    const state = this.#shards[shard]!;
    for (let i = passed; i < decoded.length; i++) {
      if (i % RECORDS_AT_ONCE === RECORDS_AT_ONCE - 1) await turn();
      if (signal.aborted) return false;
      const record = decoded[i]!;
      const place = { tag: state.place.tag, seq, line: i + 1 };
      if (record.tenant !== this.#tenant) this.#foreign(shard, seq, 1);
      else if (this.#request.wants(record) && !(await this.#send(sending, record, place))) return false;
      state.place = place;
    }
    return true;
  }

  /** False when the tail ended meanwhile. */
  async #send(sending: Sending, record: DecodedRecord, place: Place): Promise<boolean> {
    const { shard, history } = sending;
    const waits = history || !this.#sampled;
    if (!this.#rate.tryTake(1) && !(waits && (await this.#paced(this.#rate, 1, sending))))
      return !this.#over(sending) && this.#skip("rate");
    const cursor = this.#withCursor ? writeCursor(this.#shards.map((one, i) => (i === shard ? place : one.place))) : "";
    const line = recordLine(record);
    while (!this.queue.offer(line, cursor)) {
      if (await this.#room(sending)) continue;
      return !this.#over(sending) && this.#skip("slow_reader");
    }
    this.#ports.sent(1);
    return true;
  }

  #skip(reason: SkipReason): true {
    this.queue.skip({ skipped: 1 });
    this.#ports.skipped(reason, 1);
    return true;
  }

  /** What must not be: the subject said that it is this tenant's. */
  #foreign(shard: number, seq: number, records: number): void {
    this.#ports.skipped("foreign", records);
    this.#ports.log.error({ shard, seq, tenant: this.#tenant }, "a message under a tenant's subject holds another tenant's records");
  }
}

// Bringing a plan to its end: every record of it stored exactly once or parked as a dead letter.
//
// Promises: an insert whose outcome is in doubt is settled by reading back, and only what is missing is inserted again; a
// refusal of the data is bisected down to the record; the engine being down, slow or full changes nothing but time.
// The reasoning is in docs/adr/0007-exactly-once.md.

import { messageOf } from "../base/errors.ts";
import { backoffMs, sleep } from "../base/loop.ts";
import { BatchBuilder, encodeBlock } from "../event/batch.ts";
import { type DecodedRecord, decodeBatch, draftOf } from "../event/decode.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { newBatchId } from "../event/ids.ts";
import { RecordDraft } from "../event/record.ts";
import type { Plan } from "./checkpoint.ts";
import type { Batch, DeadReason, Verdict } from "./message.ts";

/** The signatures of lib/store/insert.ts, for one site and generation. */
export interface SitePort {
  insert(request: {
    token: string;
    attempt: number;
    frames: readonly Uint8Array[];
    records: number;
    signal?: AbortSignal;
  }): Promise<{ kind: "stored" } | { kind: "data" | "fenced" | "busy" | "unknown"; code: number | undefined; message: string }>;
  /** Lines of batches that are stored. */
  presence(request: {
    tenants: readonly string[];
    batches: readonly string[];
    minTimestamp: bigint;
    maxTimestamp: bigint;
  }): Promise<Map<string, number[]>>;
  /** Ends running inserts of a token, and of tokens made from it. */
  kill(token: string): Promise<void>;
  /** Waits until no insert whose answer was lost can begin any more; false when there is none. @throws when the engine cannot be asked */
  quiet(signal: AbortSignal): Promise<boolean>;
}

export interface DeadLetter {
  readonly message: StoredMessage;
  readonly tenant: string;
  readonly reason: DeadReason;
  readonly detail: string;
  /** The records concerned as a frame; undefined means the whole message as it is. */
  readonly frame: Uint8Array | undefined;
  /** Lines of the batch that it holds, for its de-duplication id; "all" for a whole message. */
  readonly lines: string;
}

export type Park = (letter: DeadLetter) => Promise<void>;

/** Places at which a test may end the process. */
export type Failpoint = (name: "planned" | "inserted" | "advanced" | "settling" | "reinserted" | "parked") => void;

export interface SettleEvents {
  doubt(plan: Plan, why: string): void;
  refused(plan: Plan, code: number | undefined, message: string): void;
  waiting(why: string | undefined): void;
  stored(records: number): void;
}

/** A message, or some lines of one. */
interface Unit {
  readonly batch: Batch;
  /** Lines still to be stored; undefined means all. */
  readonly lines: readonly number[] | undefined;
}

const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5_000;
/** Attempts whose failure nobody can explain before the plan is cut to find the cause. */
const UNEXPLAINED_MAX = 6;
/** Attempts of one piece, with an engine that answers in between, before the piece is blamed. */
const UNEXPLAINED_TRIES = 3;
const BLOCK_BYTES_MAX = 64 * 2 ** 20;
/** The engine lacks memory: for this insert, or at all. Source: ClickHouse, src/Common/ErrorCodes.cpp. */
const MEMORY_CODES: ReadonlySet<number | undefined> = new Set([173, 241]);

/** Carries out plans for one shard. */
export class Settler {
  readonly #site: SitePort;
  readonly #park: Park;
  readonly #events: SettleEvents;
  readonly #failpoint: Failpoint;
  #attempt = 0;

  constructor(site: SitePort, park: Park, events: SettleEvents, failpoint: Failpoint) {
    this.#site = site;
    this.#park = park;
    this.#events = events;
    this.#failpoint = failpoint;
  }

  /** A plan that was made just now and has never been sent: one insert, and settling only when that is in doubt. */
  async fresh(plan: Plan, verdicts: readonly Verdict[], signal: AbortSignal): Promise<void> {
    await this.#parkPoison(verdicts);
    const units = batchesOf(verdicts);
    if (units.length === 0) return;
    const outcome = await this.#insertWhole(plan.token, units, signal);
    if (outcome.kind === "stored") {
      this.#events.stored(recordsOf(units));
      this.#failpoint("inserted");
      return;
    }
    await this.#settle(plan, units, signal, outcome);
  }

  /** A plan that was found: someone may have carried it out, wholly or in part. */
  async found(plan: Plan, verdicts: readonly Verdict[], signal: AbortSignal): Promise<void> {
    await this.#parkPoison(verdicts);
    const units = batchesOf(verdicts);
    if (units.length > 0)
      await this.#settle(plan, units, signal, { kind: "unknown", code: undefined, message: "the plan was found at start" });
  }

  async #settle(plan: Plan, units: readonly Unit[], signal: AbortSignal, first: Failure): Promise<void> {
    this.#events.doubt(plan, first.message);
    /** Sequence -> lines that are parked, and so done. */
    const parked = new Map<number, Set<number>>();
    let failure: Failure | undefined = first;
    let unexplained = 0;
    /** The engine said "stored" and reading back does not agree: blocks are opened from now on, and must be what their envelopes say. */
    let distrust = false;
    for (let round = 0; ; round++) {
      signal.throwIfAborted();
      if (failure !== undefined && round > 0) {
        this.#events.waiting(failure.message);
        await sleep(backoffMs(round, RETRY_FIRST_MS, RETRY_MAX_MS), signal);
      }
      try {
        await this.#site.kill(plan.token);
        this.#failpoint("settling");
        let { missing, untouched } = await this.#missing(units, parked);
        // All there: the one insert that was in doubt has arrived, for no other was sent before it was quiet.
        if (missing.length === 0) break;
        if (await this.#site.quiet(signal)) {
          await this.#site.kill(plan.token);
          ({ missing, untouched } = await this.#missing(units, parked));
          if (missing.length === 0) break;
        }
        if (failure?.kind === "data" || MEMORY_CODES.has(failure?.code) || unexplained >= UNEXPLAINED_MAX) {
          this.#events.refused(plan, failure?.code, failure?.message ?? "");
          await this.#bisect(plan, missing, parked, signal);
          failure = undefined;
          unexplained = 0;
          continue;
        }
        // Nothing is there: the same rows under the same token, so that a late twin of the first attempt is a duplicate.
        // Something is there, or the token was tried and is not trusted: only what is missing, under a fresh token.
        const outcome: Outcome =
          untouched && round === 0
            ? await this.#insertWhole(plan.token, units, signal)
            : await this.#insertUnits(freshToken(plan), distrust ? missing.map(opened) : missing, signal);
        this.#failpoint("reinserted");
        failure = outcome.kind === "stored" ? undefined : outcome;
        distrust ||= outcome.kind === "stored";
        unexplained = outcome.kind === "unknown" ? unexplained + 1 : 0;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof BlockError) {
          await this.#parkUnit(error.unit, parked, error.reason, error.message);
          continue;
        }
        failure = { kind: "busy", code: undefined, message: messageOf(error) };
      }
    }
    this.#events.waiting(undefined);
    this.#events.stored(recordsOf(units));
  }

  /** What of the units is not in the table and not parked, and whether nothing at all of them is in the table. */
  async #missing(
    units: readonly Unit[],
    parked: ReadonlyMap<number, ReadonlySet<number>>,
  ): Promise<{ missing: Unit[]; untouched: boolean }> {
    const envelopes = units.map((unit) => unit.batch.envelope);
    const present = await this.#site.presence({
      tenants: [...new Set(envelopes.map((envelope) => envelope.tenant))],
      batches: [...new Set(envelopes.map((envelope) => envelope.batch))],
      minTimestamp: envelopes.reduce(
        (min, envelope) => (envelope.minTimestamp < min ? envelope.minTimestamp : min),
        envelopes[0]!.minTimestamp,
      ),
      maxTimestamp: envelopes.reduce((max, envelope) => (envelope.maxTimestamp > max ? envelope.maxTimestamp : max), 0n),
    });
    const lines = new Map([...present].map(([batch, found]) => [batch, new Set(found)]));
    let untouched = true;
    const missing: Unit[] = [];
    for (const unit of units) {
      const { batch, firstLine, records } = unit.batch.envelope;
      const [stored, dead] = [lines.get(batch), parked.get(unit.batch.seq)];
      const absent = [];
      for (let line = firstLine; line < firstLine + records; line++) {
        if (stored?.has(line)) untouched = false;
        else if (!dead?.has(line)) absent.push(line);
      }
      if (absent.length > 0) missing.push({ batch: unit.batch, lines: absent.length === records ? undefined : absent });
    }
    return { missing, untouched: untouched && parked.size === 0 };
  }

  async #insertWhole(token: string, units: readonly Unit[], signal: AbortSignal): Promise<Outcome> {
    return await this.#site.insert({
      token,
      attempt: this.#attempt++,
      frames: units.map((unit) => unit.batch.message.payload),
      records: recordsOf(units),
      signal,
    });
  }

  async #insertUnits(token: string, units: readonly Unit[], signal: AbortSignal): Promise<Outcome> {
    const frames: Uint8Array[] = [];
    for (const unit of units) frames.push(unit.lines === undefined ? unit.batch.message.payload : await sliceFrame(unit));
    return await this.#site.insert({ token, attempt: this.#attempt++, frames, records: recordsOf(units), signal });
  }

  /** Inserts what the engine takes of the units and parks what it refuses. @throws when the engine cannot now; the next round goes on */
  async #bisect(plan: Plan, units: readonly Unit[], parked: Map<number, Set<number>>, signal: AbortSignal): Promise<void> {
    let [left, outcome] = [units, await this.#insertUnits(freshToken(plan), units, signal)];
    for (let tries = 1; outcome.kind === "unknown"; tries++) {
      // A connection that broke may have stored everything: look before sending or blaming any of it again.
      await sleep(backoffMs(tries, RETRY_FIRST_MS, RETRY_MAX_MS), signal);
      signal.throwIfAborted();
      await this.#site.quiet(signal);
      await this.#site.kill(plan.token);
      left = (await this.#missing(left, parked)).missing;
      if (left.length === 0) return;
      if (tries === UNEXPLAINED_TRIES) break;
      outcome = await this.#insertUnits(freshToken(plan), left, signal);
    }
    if (outcome.kind === "stored") return;
    const large = outcome.kind === "busy" && MEMORY_CODES.has(outcome.code);
    // Too large for the engine is cut down to messages, never blamed on a record; but a block that asks for much may be broken.
    if (large && left.length === 1 && left[0]!.lines === undefined) await sliceFrame(left[0]!);
    if (outcome.kind === "fenced" || (outcome.kind === "busy" && !(large && left.length > 1))) throw new Error(outcome.message);
    const halves = split(left);
    if (halves === undefined) {
      await this.#parkUnit(left[0]!, parked, outcome.kind === "data" ? "record_refused" : "engine_fails", outcome.message);
      return;
    }
    for (const half of halves) await this.#bisect(plan, half, parked, signal);
  }

  async #parkUnit(unit: Unit, parked: Map<number, Set<number>>, reason: DeadReason, detail: string): Promise<void> {
    const { message, envelope, seq } = unit.batch;
    const lines = unit.lines ?? linesOf(unit);
    const frame = unit.lines === undefined || reason === "records_missing" ? undefined : await sliceFrame(unit);
    await this.#park({
      message,
      tenant: envelope.tenant,
      reason,
      detail,
      frame,
      lines: unit.lines === undefined ? "all" : unit.lines.join(","),
    });
    this.#failpoint("parked");
    parked.set(seq, new Set([...(parked.get(seq) ?? []), ...lines]));
  }

  async #parkPoison(verdicts: readonly Verdict[]): Promise<void> {
    for (const verdict of verdicts) {
      if (verdict.kind !== "poison") continue;
      const { message, tenant, reason, detail } = verdict;
      await this.#park({ message, tenant, reason, detail, frame: undefined, lines: "all" });
      this.#failpoint("parked");
    }
  }
}

type Outcome = Awaited<ReturnType<SitePort["insert"]>>;
type Failure = Exclude<Outcome, { kind: "stored" }>;

/** A message whose block cannot be opened, or does not hold what its envelope says. */
class BlockError extends Error {
  override readonly name = "BlockError";
  readonly unit: Unit;
  readonly reason: DeadReason;
  constructor(unit: Unit, reason: DeadReason, message: string) {
    super(message);
    this.unit = unit;
    this.reason = reason;
  }
}

function batchesOf(verdicts: readonly Verdict[]): Unit[] {
  return verdicts.flatMap((verdict) => (verdict.kind === "batch" ? [{ batch: verdict, lines: undefined }] : []));
}

function recordsOf(units: readonly Unit[]): number {
  return units.reduce((sum, unit) => sum + (unit.lines?.length ?? unit.batch.envelope.records), 0);
}

function linesOf(unit: Unit): readonly number[] {
  const { firstLine, records } = unit.batch.envelope;
  return unit.lines ?? Array.from({ length: records }, (_, i) => firstLine + i);
}

/** Begins with the plan's token and a slash, as the ids of its first inserts do, so that killing the plan's inserts finds it. */
function freshToken(plan: Plan): string {
  return `${plan.token}/${newBatchId(Date.now())}`;
}

/** The unit with its lines named one by one, so that its frame is opened and checked. */
function opened(unit: Unit): Unit {
  return { batch: unit.batch, lines: linesOf(unit) };
}

/** Two halves of several messages, or of one message's lines; undefined when there is a single record. */
function split(units: readonly Unit[]): [Unit[], Unit[]] | undefined {
  if (units.length > 1) return [units.slice(0, units.length >> 1), units.slice(units.length >> 1)];
  const unit = units[0]!;
  const lines = linesOf(unit);
  if (lines.length <= 1) return undefined;
  const middle = lines.length >> 1;
  return [[{ batch: unit.batch, lines: lines.slice(0, middle) }], [{ batch: unit.batch, lines: lines.slice(middle) }]];
}

/** A frame with only the unit's lines, each as the envelope says. @throws BlockError */
async function sliceFrame(unit: Unit): Promise<Uint8Array> {
  const wanted = new Set(linesOf(unit));
  const { tenant, batch, minTimestamp, maxTimestamp } = unit.batch.envelope;
  const asSaid = (record: DecodedRecord): boolean => {
    const timestamp = BigInt(record.timestamp);
    return record.tenant === tenant && record.batch === batch && timestamp >= minTimestamp && timestamp <= maxTimestamp;
  };
  let records: DecodedRecord[];
  try {
    records = await decodeBatch(unit.batch.message.payload, BLOCK_BYTES_MAX);
  } catch (error) {
    throw new BlockError({ batch: unit.batch, lines: undefined }, "block_invalid", `the block cannot be opened: ${messageOf(error)}`);
  }
  const kept = records.filter((record) => wanted.has(record.line) && asSaid(record));
  const found = new Set(kept.map((record) => record.line));
  const absent = [...wanted].filter((line) => !found.has(line));
  if (absent.length > 0)
    throw new BlockError(
      { batch: unit.batch, lines: absent },
      "records_missing",
      `the block lacks ${absent.length} lines that its envelope names`,
    );
  const builder = new BatchBuilder();
  const draft = new RecordDraft();
  for (const record of kept) {
    draftOf(record, draft);
    builder.add(draft);
  }
  const observedMs = Number(BigInt(kept[0]!.observed_timestamp) / 1_000_000n);
  const block = builder.finish(
    tenant,
    batch,
    observedMs,
    kept.map((record) => record.line),
  );
  return await encodeBlock(block);
}

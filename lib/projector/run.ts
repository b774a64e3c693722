// One shard of one generation on one site: read, plan, insert, settle, advance, for ever.
//
// Promises: the order of RELIABILITY is kept (the plan is durable before the insert, the advance comes after it); at most
// one owner makes progress; a stream that was replaced stops the worker with an alarm instead of mixing two histories.

import type { Clock } from "../base/clock.ts";
import type { Values } from "../base/config.ts";
import { duration } from "../base/config.ts";
import { messageOf } from "../base/errors.ts";
import type { Health } from "../base/health.ts";
import { backoffMs, sleep } from "../base/loop.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Classes } from "../event/retention.ts";
import type { Register } from "../streams/cas.ts";
import type { Claim } from "../streams/lease.ts";
import { acquire, LeaseLost } from "../streams/lease.ts";
import type { Checkpoint, Plan } from "./checkpoint.ts";
import { mayRelease } from "./checkpoint.ts";
import type { Gathered } from "./gather.ts";
import { Gatherer, gatherSettings } from "./gather.ts";
import type { Judge, Verdict } from "./message.ts";
import { recordsOf } from "./message.ts";
import type { ProjectorMetrics } from "./metrics.ts";
import type { Failpoint, Park } from "./settle.ts";
import { Settler } from "./settle.ts";
import { settleEvents } from "./settle-events.ts";
import type { SiteFor } from "./site.ts";
import type { Place, Range, Source } from "./source.ts";
import { lagOf, readerAt, SequencesMissing, StreamReplaced } from "./source.ts";
import type { TenantRules } from "./tenants.ts";
import { classesFor, knowAsMuch, passDeleted, planOf, sayKnown } from "./tenants.ts";

export const projectorSettings = {
  ...gatherSettings,
  leaseMs: duration("RELOG_LEASE", "5s", "how long a projector may be silent before another one takes its shard"),
};

export interface ShardPorts {
  /** "main/1/0": site, generation and shard, for logs and metrics. */
  readonly name: string;
  readonly register: Register<Checkpoint>;
  readonly source: Source;
  readonly judge: Judge;
  /** Waits for this many records' turn, so that a rebuild leaves room for others. */
  readonly pace?: (records: number, signal: AbortSignal) => Promise<void>;
  /** Told of records that were stored. */
  readonly stored?: (records: number) => void;
  /** The first place that is not projected any more: the worker ends there. */
  readonly end?: Place;
  readonly site: SiteFor;
  readonly tenants: TenantRules;
  readonly park: Park;
  readonly failpoint: Failpoint;
}

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 5_000;
/** How often an idle owner looks whether it should leave. */
const IDLE_MS = 2_000;
/** How often a busy owner looks whether the stream is still the same one. */
const CHECK_MS = 2_000;

export interface ShardContext {
  readonly ports: ShardPorts;
  readonly settings: Values<typeof projectorSettings>;
  /** Who takes the checkpoint: unique to this process. */
  readonly owner: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly health: Health;
  readonly metrics: ProjectorMetrics;
  /** Ends the work between two plans. */
  readonly leave: AbortSignal;
  /** Ends it within one; the plan stays for the next owner. */
  readonly abandon: AbortSignal;
  /** Faults that trying again does not mend, and that `run` throws; none when it is absent. */
  readonly isFatal?: (error: unknown) => boolean;
}

/** The worker of one shard. */
export class ShardWorker {
  readonly #ports: ShardPorts;
  readonly #settings: Values<typeof projectorSettings>;
  readonly #owner: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #health: Health;
  readonly #metrics: ProjectorMetrics;
  readonly #leave: AbortSignal;
  readonly #abandon: AbortSignal;
  readonly #isFatal: (error: unknown) => boolean;
  /** Names the shard in health. */
  readonly #subject: string;

  constructor(context: ShardContext) {
    this.#ports = context.ports;
    this.#settings = context.settings;
    this.#owner = context.owner;
    this.#clock = context.clock;
    this.#log = context.log;
    this.#health = context.health;
    this.#metrics = context.metrics;
    this.#leave = context.leave;
    this.#abandon = context.abandon;
    this.#isFatal = context.isFatal ?? (() => false);
    this.#subject = `shard ${context.ports.name}`;
  }

  /**
   * Runs until `leave` aborts; a plan that is under way then is finished unless `abandon` aborts too.
   * Every fault is logged, shown in health and tried again. @throws only what `isFatal` says
   */
  async run(): Promise<void> {
    let lastFault = "";
    for (let attempt = 0; !this.#leave.aborted; attempt++) {
      try {
        const lease = {
          register: this.#ports.register,
          clock: this.#clock,
          owner: this.#owner,
          leaseMs: this.#settings.leaseMs,
          mayRelease,
        };
        const claim = await acquire(lease, () => this.#fresh(), this.#leave);
        if (claim === undefined) return;
        await using _ = claim;
        this.#log.info({ shard: this.#ports.name, next: claim.value.next, plan: claim.value.plan }, "projecting");
        this.#health.warn(this.#subject, undefined);
        const began = claim.value.next;
        await this.#own(claim).finally(() => {
          // Only progress ends a row of failures: one that stumbles over the same message each time must slow down.
          if (claim.value.next > began) attempt = 0;
        });
        if (this.#done(claim)) return;
      } catch (error) {
        if (error instanceof LeaseLost) {
          this.#health.warn(this.#subject, undefined);
          this.#log.warn({ shard: this.#ports.name }, "the shard has another owner now");
          continue;
        }
        if (this.#isFatal(error)) throw error;
        if (this.#abandon.aborted) return;
        this.#metrics.faults.inc({ shard: this.#ports.name });
        this.#health.warn(this.#subject, messageOf(error));
        const what = error instanceof StreamReplaced ? "the projection halts" : "the projection stumbled; it tries again";
        // The same fault again and again is one line; health and the metric show that it lasts.
        if (messageOf(error) !== lastFault) this.#log.error({ shard: this.#ports.name, err: error }, what);
        lastFault = messageOf(error);
        await sleep(error instanceof StreamReplaced ? RETRY_MAX_MS : backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS), this.#leave);
      }
    }
  }

  async #fresh(): Promise<Checkpoint> {
    const { next, stream } = await this.#ports.source.first();
    return { next: Math.max(1, next), plan: null, owner: "", stream, writes: 0 };
  }

  #done(claim: Claim<Checkpoint>): boolean {
    const { end } = this.#ports;
    return end !== undefined && claim.value.stream === end.stream && claim.value.next >= end.next;
  }

  #reader(claim: Claim<Checkpoint>) {
    return readerAt(this.#ports.source, () => claim.value, this.#ports.end);
  }

  async #own(claim: Claim<Checkpoint>): Promise<void> {
    await this.#checkStream(claim);
    const { judge, pace, end, tenants, source } = this.#ports;
    await knowAsMuch(claim, tenants);
    const events = settleEvents(this.#ports, this.#log, this.#health, this.#metrics);
    const settlerOf = (classes: Classes): Settler =>
      new Settler(
        this.#ports.site(() => claim.deadline, classes),
        this.#ports.park,
        events,
        this.#ports.failpoint,
      );
    // Settling may take as long as the engine is down; one that lost its turn meanwhile leaves it.
    const stop = AbortSignal.any([this.#abandon, claim.lost]);
    const gatherer = new Gatherer(this.#reader(claim), judge, this.#settings, this.#clock);
    let ahead: Promise<Gathered | undefined> | undefined;
    let checkedMs = this.#clock.monotonicMs();
    this.#metrics.lag(this.#ports.name, () => lagOf(source, this.#reader(claim), claim.value.next));
    this.#metrics.watermark(this.#ports.name, claim.value.next - 1);
    try {
      if (claim.value.plan !== null) await this.#resume(claim, settlerOf, claim.value.plan, stop);
      while (!this.#leave.aborted && !this.#done(claim)) {
        const gathered = await (ahead ?? gatherer.next(claim.value.next, IDLE_MS, this.#leave));
        ahead = undefined;
        if (gathered === undefined || this.#clock.monotonicMs() - checkedMs > CHECK_MS) {
          await this.#checkStream(claim, gathered === undefined);
          checkedMs = this.#clock.monotonicMs();
        }
        if (gathered === undefined) continue;
        if (gathered.missing !== undefined) {
          await this.#passHole(claim, gathered.missing);
          continue;
        }
        await pace?.(recordsOf(gathered.verdicts), this.#leave);
        const { verdicts, plan, accounts } = planOf(claim.value.next, gathered.verdicts, tenants, this.#clock.now());
        await claim.change({ plan, accounts });
        this.#ports.failpoint("planned");
        // The next plan's messages are read while ClickHouse works on this one.
        if (plan.to + 1 !== end?.next) ahead = gatherer.next(plan.to + 1, IDLE_MS, this.#leave);
        ahead?.catch(() => undefined);
        const stopTimer = this.#metrics.insertSeconds.startTimer({ shard: this.#ports.name });
        await settlerOf(plan.classes).fresh(plan, verdicts, stop);
        stopTimer();
        await claim.change({ next: plan.to + 1, plan: null });
        this.#ports.failpoint("advanced");
        this.#observe(verdicts);
      }
    } finally {
      this.#metrics.lag(this.#ports.name, undefined);
      await ahead?.catch(() => undefined);
    }
  }

  /** Carries out a plan that an earlier owner left: its range is read again, exactly. */
  async #resume(claim: Claim<Checkpoint>, settlerOf: (classes: Classes) => Settler, plan: Plan, stop: AbortSignal): Promise<void> {
    this.#log.info({ shard: this.#ports.name, plan }, "settling a plan that was left");
    const read = this.#reader(claim);
    const verdicts: Verdict[] = [];
    for (let at = plan.from; at <= plan.to; ) {
      const { messages, missing } = await read(at, { messagesMax: plan.to - at + 1, bytesMax: this.#settings.planBytesMax });
      if (missing !== undefined) {
        this.#reportHole(missing.from, Math.min(missing.to, plan.to));
        at = missing.to + 1;
        continue;
      }
      if (messages.length === 0) {
        // A stream from which everything has expired answers like one whose replica lags; its leader tells them apart.
        const { firstSeq, created } = await this.#ports.source.facts();
        if (firstSeq <= at || created !== claim.value.stream) throw new Error(`sequence ${at} of a plan cannot be read yet`);
        this.#reportHole(at, Math.min(firstSeq - 1, plan.to));
        at = firstSeq;
        continue;
      }
      verdicts.push(...messages.map(this.#ports.judge));
      at += messages.length;
    }
    const kept = passDeleted(verdicts, this.#ports.tenants);
    await settlerOf(plan.classes ?? classesFor(kept, this.#ports.tenants)).found(plan, kept, stop);
    await claim.change({ next: plan.to + 1, plan: null });
    this.#observe(verdicts);
  }

  /**
   * Makes sure that the stream is the one that the checkpoint speaks of, or moves on from an earlier one that is read to its end.
   * @param idle whether nothing more could be read
   */
  async #checkStream(claim: Claim<Checkpoint>, idle = false): Promise<void> {
    const { source, tenants } = this.#ports;
    if (idle) await sayKnown(claim, tenants);
    const { stream, next } = claim.value;
    const facts = await source.facts();
    if (facts.created !== stream) {
      if (source.following === undefined) {
        throw new StreamReplaced(
          `the stream was created at ${facts.created}, but the checkpoint is of one created at ${stream}: \`relog rebuild\` makes a generation from the archive and the new stream`,
        );
      }
      if (idle) await claim.change(await source.following(stream));
      return;
    }
    if (next > facts.lastSeq + 1) {
      throw new StreamReplaced(`the stream ends at ${facts.lastSeq}, but ${next - 1} was projected: the stream lost messages`);
    }
    // A stream from which everything has expired shows no message behind the hole.
    if (!idle || facts.firstSeq <= next) return;
    await source.look?.();
    const { messages, missing } = await this.#reader(claim)(next, { messagesMax: 1, bytesMax: 1 });
    if (messages.length === 0) await this.#passHole(claim, missing ?? { from: next, to: facts.firstSeq - 1 });
  }

  async #passHole(claim: Claim<Checkpoint>, missing: Range): Promise<void> {
    const { source, name } = this.#ports;
    if (source.mayPass !== undefined && !(await source.mayPass(claim.value.stream, missing)))
      throw new SequencesMissing(`${name}: neither the stream nor the archive holds the sequences ${missing.from} to ${missing.to}`);
    this.#reportHole(missing.from, missing.to);
    await claim.change({ next: missing.to + 1 });
    this.#metrics.watermark(name, missing.to);
  }

  #reportHole(from: number, to: number): void {
    this.#metrics.holes.inc({ shard: this.#ports.name }, to - from + 1);
    this.#log.error(
      { shard: this.#ports.name, from, to },
      "the stream does not hold these sequences any more; they were not projected here",
    );
  }

  #observe(verdicts: readonly Verdict[]): void {
    const last = verdicts.at(-1);
    this.#metrics.planRecords.observe({ shard: this.#ports.name }, recordsOf(verdicts));
    if (last !== undefined) this.#metrics.watermark(this.#ports.name, last.seq);
  }
}

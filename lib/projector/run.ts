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
import { newBatchId } from "../event/ids.ts";
import type { CheckpointRegister, Claim, Plan } from "./checkpoint.ts";
import { acquire, LeaseLost } from "./checkpoint.ts";
import type { Gathered, ReadStream } from "./gather.ts";
import { Gatherer, gatherSettings } from "./gather.ts";
import type { Verdict } from "./message.ts";
import { judge } from "./message.ts";
import type { ProjectorMetrics } from "./metrics.ts";
import type { Failpoint, Park, SitePort } from "./settle.ts";
import { Settler } from "./settle.ts";

export const projectorSettings = {
  ...gatherSettings,
  leaseMs: duration("RELOG_LEASE", "5s", "how long a projector may be silent before another one takes its shard"),
};

export interface StreamFacts {
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly created: string;
}

export interface ShardPorts {
  /** "main/1/0": site, generation and shard, for logs and metrics. */
  readonly name: string;
  readonly register: CheckpointRegister;
  readonly read: ReadStream;
  readonly facts: () => Promise<StreamFacts>;
  /** The site's table, given the fence: monotonic milliseconds after which an insert must be refused. */
  readonly site: (deadline: () => number) => SitePort;
  readonly park: Park;
  readonly failpoint: Failpoint;
}

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 5_000;
/** How often an idle owner looks whether it should leave. */
const IDLE_MS = 2_000;

/** The stream is not the one the checkpoint speaks of. Only a person can say what is right. */
export class StreamReplaced extends Error {
  override readonly name = "StreamReplaced";
}

/**
 * Runs until `leave` aborts; a plan that is under way then is finished unless `abandon` aborts too.
 * Never throws: every fault is logged, shown in health and tried again.
 */
export async function projectShard(
  ports: ShardPorts,
  settings: Values<typeof projectorSettings>,
  owner: string,
  clock: Clock,
  log: Logger,
  health: Health,
  metrics: ProjectorMetrics,
  leave: AbortSignal,
  abandon: AbortSignal,
): Promise<void> {
  const subject = `shard ${ports.name}`;
  for (let attempt = 0; !leave.aborted; attempt++) {
    try {
      const claim = await acquire(ports.register, clock, owner, settings.leaseMs, fresh, leave);
      if (claim === undefined) return;
      await using _ = claim;
      log.info({ shard: ports.name, next: claim.value.next, plan: claim.value.plan }, "projecting");
      health.warn(subject, undefined);
      const began = claim.value.next;
      await own(claim).finally(() => {
        // Only progress ends a row of failures: one that stumbles over the same message each time must slow down.
        if (claim.value.next > began) attempt = 0;
      });
    } catch (error) {
      if (error instanceof LeaseLost) {
        log.warn({ shard: ports.name }, "the shard has another owner now");
        continue;
      }
      if (abandon.aborted) return;
      metrics.faults.inc({ shard: ports.name });
      health.warn(subject, messageOf(error));
      log.error(
        { shard: ports.name, err: error },
        error instanceof StreamReplaced ? "the projection halts" : "the projection stumbled; it tries again",
      );
      await sleep(error instanceof StreamReplaced ? RETRY_MAX_MS : backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS), leave);
    }
  }

  async function fresh() {
    const { firstSeq, created } = await ports.facts();
    return { next: Math.max(1, firstSeq), plan: null, owner: "", stream: created, writes: 0 };
  }

  async function own(claim: Claim): Promise<void> {
    await checkStream(claim);
    const settler = new Settler(
      ports.site(() => claim.deadline),
      ports.park,
      eventsOf(),
      ports.failpoint,
    );
    // Settling may take as long as the engine is down; one that lost its turn meanwhile leaves it.
    const stop = AbortSignal.any([abandon, claim.lost]);
    const gatherer = new Gatherer(ports.read, settings, clock);
    if (claim.value.plan !== null) await resume(claim, settler, claim.value.plan, stop);
    let ahead: Promise<Gathered | undefined> | undefined;
    metrics.lag(ports.name, async () => (await ports.facts()).lastSeq - claim.value.next + 1);
    try {
      while (!leave.aborted) {
        const gathered = await (ahead ?? gatherer.next(claim.value.next, IDLE_MS, leave));
        ahead = undefined;
        if (gathered === undefined) {
          await checkStream(claim);
          continue;
        }
        if (gathered.missing !== undefined) {
          await passHole(claim, gathered.missing);
          continue;
        }
        const { verdicts } = gathered;
        const plan = { from: claim.value.next, to: claim.value.next + verdicts.length - 1, token: `${newBatchId(clock.now())}` };
        await claim.change({ plan });
        ports.failpoint("planned");
        // The next plan's messages are read while ClickHouse works on this one.
        ahead = gatherer.next(plan.to + 1, IDLE_MS, leave);
        ahead.catch(() => undefined);
        const end = metrics.insertSeconds.startTimer({ shard: ports.name });
        await settler.fresh(plan, verdicts, stop);
        end();
        await claim.change({ next: plan.to + 1, plan: null });
        ports.failpoint("advanced");
        observe(verdicts);
      }
    } finally {
      metrics.lag(ports.name, undefined);
      await ahead?.catch(() => undefined);
    }
  }

  /** Carries out a plan that an earlier owner left: its range is read again, exactly. */
  async function resume(claim: Claim, settler: Settler, plan: Plan, stop: AbortSignal): Promise<void> {
    log.info({ shard: ports.name, plan }, "settling a plan that was left");
    const verdicts: Verdict[] = [];
    for (let at = plan.from; at <= plan.to; ) {
      const { messages, missing } = await ports.read(at, { messagesMax: plan.to - at + 1, bytesMax: settings.planBytesMax });
      if (missing !== undefined) {
        reportHole(missing.from, Math.min(missing.to, plan.to));
        at = missing.to + 1;
        continue;
      }
      if (messages.length === 0) {
        // A stream from which everything has expired answers like one whose replica lags; its leader tells them apart.
        const { firstSeq } = await ports.facts();
        if (firstSeq <= at) throw new Error(`sequence ${at} of a plan cannot be read yet`);
        reportHole(at, Math.min(firstSeq - 1, plan.to));
        at = firstSeq;
        continue;
      }
      verdicts.push(...messages.map(judge));
      at += messages.length;
    }
    await settler.found(plan, verdicts, stop);
    await claim.change({ next: plan.to + 1, plan: null });
    observe(verdicts);
  }

  async function checkStream(claim: Claim): Promise<void> {
    const facts = await ports.facts();
    const { stream, next } = claim.value;
    if (facts.created !== stream) {
      throw new StreamReplaced(
        `the stream was created at ${facts.created}, but the checkpoint is of one created at ${stream}: rebuild the projection`,
      );
    }
    if (next > facts.lastSeq + 1) {
      throw new StreamReplaced(`the stream ends at ${facts.lastSeq}, but ${next - 1} was projected: the stream lost messages`);
    }
  }

  async function passHole(claim: Claim, missing: { from: number; to: number }): Promise<void> {
    reportHole(missing.from, missing.to);
    await claim.change({ next: missing.to + 1 });
  }

  function reportHole(from: number, to: number): void {
    metrics.holes.inc({ shard: ports.name }, to - from + 1);
    log.error({ shard: ports.name, from, to }, "the stream does not hold these sequences any more; they were not projected here");
  }

  function observe(verdicts: readonly Verdict[]): void {
    const last = verdicts.at(-1);
    const records = verdicts.reduce((sum, verdict) => sum + (verdict.kind === "batch" ? verdict.envelope.records : 0), 0);
    metrics.planRecords.observe({ shard: ports.name }, records);
    if (last !== undefined) metrics.watermark(ports.name, last.seq, last.message.storedMs);
  }

  function eventsOf() {
    return {
      doubt: (plan: Plan, why: string) => {
        metrics.settles.inc({ shard: ports.name });
        log.warn({ shard: ports.name, plan, why }, "the outcome of an insert is in doubt; reading back");
      },
      refused: (plan: Plan, code: number | undefined, message: string) =>
        log.warn(
          { shard: ports.name, plan, code, why: message.slice(0, 300) },
          "the engine refuses an insert's data; looking for the cause",
        ),
      waiting: (why: string | undefined) => {
        metrics.waiting(ports.name, why !== undefined);
        health.warn(subject, why === undefined ? undefined : `the plan waits: ${why.slice(0, 300)}`);
      },
      stored: (records: number) => metrics.records.inc({ shard: ports.name }, records),
    };
  }
}

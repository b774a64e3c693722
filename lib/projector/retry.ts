// Retrying dead letters: projecting them again into the table of the site and generation that parked them.
//
// Promises: a record of a letter is in the table exactly once, however often it is retried and wherever a retry is killed; a
// letter is deleted only when all its records were read back from the table; one retry of a generation at a time, and the
// next one brings to its end what a killed one has left. Nothing is appended to LOGS: a rebuild would store it again.
// docs/adr/0013-dead-letters.md says why.

import type { Clock } from "../base/clock.ts";
import { RelogError } from "../base/errors.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { newBatchId } from "../event/ids.ts";
import type { Classes } from "../event/retention.ts";
import type { Register } from "../streams/cas.ts";
import type { DeadLetter } from "../streams/dead-letters.ts";
import type { Claim, Leased } from "../streams/lease.ts";
import { acquire } from "../streams/lease.ts";
import type { Opened } from "./letter.ts";
import { openLetter, originOf } from "./letter.ts";
import { Lines } from "./lines.ts";
import type { Batch, Judge } from "./message.ts";
import type { Failpoint, DeadLetter as Refused, SettleEvents } from "./settle.ts";
import { Settler } from "./settle.ts";
import type { SiteFor } from "./site.ts";
import type { TenantRules } from "./tenants.ts";
import { classesFor } from "./tenants.ts";

export interface RetryPlan {
  /** Sequences in DEAD_LETTERS. */
  readonly letters: readonly number[];
  readonly token: string;
  /** As Plan.classes. */
  readonly classes?: Classes;
}

export interface RetryState extends Leased {
  readonly plan: RetryPlan | null;
}

/** The key of the register that a retry of a generation owns. */
export function retryKey(site: string, generation: number): string {
  return `retry.${site}.${generation}`;
}

export const NOBODY: RetryState = { plan: null, owner: "", writes: 0 };

/** What became of a letter. Only a stored one is deleted. */
export interface RetryResult {
  readonly seq: number;
  readonly tenant: string;
  /** `ready`: a dry run would send it. `refused`: as before, or for another reason. `skipped`: it cannot be tried here or now. */
  readonly outcome: "stored" | "ready" | "refused" | "skipped";
  /** A DeadReason when it is refused; what is in the way when it is skipped; "" otherwise. */
  readonly reason: string;
  readonly detail: string;
  /** Records of it that can be or are stored. */
  readonly records: number;
}

export interface RetryPorts {
  readonly generation: number;
  readonly register: Pick<Register<RetryState>, "read" | "write">;
  readonly clock: Clock;
  /** Unique to this process. */
  readonly owner: string;
  readonly leaseMs: number;
  letter(seq: number): Promise<DeadLetter | undefined>;
  /** The message that a letter was made of, for one whose payload was too large to be parked; undefined when nobody has it. */
  origin(letter: DeadLetter): Promise<StoredMessage | undefined>;
  /** Why a letter cannot be tried now: its plan is still open, a rebuild works on its tenant. Asked while the register is owned. */
  obstacle(letter: DeadLetter): Promise<{ readonly reason: string; readonly detail: string } | undefined>;
  readonly judge: Judge;
  readonly site: SiteFor;
  readonly tenants: Pick<TenantRules, "daysOf">;
  readonly events: SettleEvents;
  /** Keeps what came of a plan, under the plan's token; may be called again with the same. */
  record(token: string, results: readonly RetryResult[]): Promise<void>;
  remove(seq: number): Promise<unknown>;
  readonly failpoint: (name: Parameters<Failpoint>[0] | "retry-planned" | "retry-settled" | "retry-recorded" | "retry-removed") => void;
}

/** Bounds of one plan. */
const PLAN_LETTERS_MAX = 200;
const PLAN_BYTES_MAX = 16 * 2 ** 20;
/** How much longer than a lease one waits for another retry to end, or to be known dead. */
const WAIT_MS = 2_000;

interface Prepared {
  readonly letter: DeadLetter;
  readonly opened: Opened;
  readonly bytes: number;
}

const result = (seq: number, tenant: string, outcome: RetryResult["outcome"], reason = "", detail = "", records = 0): RetryResult => ({
  seq,
  tenant,
  outcome,
  reason,
  detail,
  records,
});

const recordsOf = (opened: Opened): number => opened.batches.reduce((sum, { envelope }) => sum + envelope.records, 0);

const batchesOf = (prepared: readonly Prepared[]): Batch[] => prepared.flatMap(({ opened }) => opened.batches);

/** One after the other, so that no two messages of a plan have the same. */
function counter(): () => number {
  let last = 0;
  return () => ++last;
}

type PreparePorts = Pick<RetryPorts, "letter" | "origin" | "judge" | "generation">;

/** A letter made ready, or why it cannot be. */
async function prepare(
  ports: PreparePorts,
  seq: number,
  nextSeq: () => number,
  obstacle: RetryPorts["obstacle"],
): Promise<Prepared | RetryResult> {
  const letter = await ports.letter(seq);
  if (letter === undefined) return result(seq, "", "skipped", "not_found", "there is no such letter; it was retried or dropped");
  const { tenant } = letter;
  const skipped = (reason: string, detail: string): RetryResult => result(seq, tenant, "skipped", reason, detail);
  if (letter.generation !== ports.generation) return skipped("other_generation", `it was parked by generation ${letter.generation}`);
  const why = await obstacle(letter);
  if (why !== undefined) return skipped(why.reason, why.detail);
  const message = letter.omittedBytes === undefined ? originOf(letter, letter.payload) : await ports.origin(letter);
  if (message === undefined)
    return skipped(
      "origin_gone",
      `its payload was too large to be parked, and ${letter.stream} has let go of sequence ${letter.originSeq}`,
    );
  const opened = await openLetter(letter, message, ports.judge, nextSeq);
  if (opened.expired) return skipped("expired", "its records are past their retention; drop it");
  return { letter, opened, bytes: opened.batches.reduce((sum, batch) => sum + batch.message.payload.length, 0) };
}

/** What a retry would do, as far as this version can say without asking the engine. Changes nothing. @throws NatsError */
export async function tryRetry(ports: PreparePorts & Pick<RetryPorts, "obstacle">, seqs: readonly number[]): Promise<RetryResult[]> {
  const results: RetryResult[] = [];
  for (const seq of seqs) {
    const one = await prepare(ports, seq, counter(), ports.obstacle);
    if (!("opened" in one)) results.push(one);
    else if (one.opened.refusal !== undefined) results.push(refusedResult(one, one.opened.refusal, 0));
    else results.push(result(seq, one.letter.tenant, "ready", "", "", recordsOf(one.opened)));
  }
  return results;
}

function refusedResult({ letter }: Prepared, { reason, detail }: { reason: string; detail: string }, records: number): RetryResult {
  return result(letter.seq, letter.tenant, "refused", reason, detail, records);
}

/**
 * Retries letters of one generation. What an earlier retry left open is settled first, and its results come first.
 * @throws RelogError dead_letters_busy when another retry runs; the signal's reason, NatsError: what is left is settled by the next one
 */
export async function retryLetters(ports: RetryPorts, seqs: readonly number[], signal: AbortSignal): Promise<RetryResult[]> {
  await using claim = await own(ports, signal);
  const stop = AbortSignal.any([signal, claim.lost]);
  const settle = new PlanOfLetters(ports, claim, stop);
  const results: RetryResult[] = [];
  if (claim.value.plan !== null) results.push(...(await settle.resume(claim.value.plan)));
  const done = new Set(results.map(({ seq }) => seq));
  let open: Prepared[] = [];
  let bytes = 0;
  let taken = new Lines();
  const nextSeq = counter();
  async function flush(): Promise<void> {
    if (open.length > 0) results.push(...(await settle.fresh(open)));
    [open, bytes, taken] = [[], 0, new Lines()];
  }
  for (const seq of seqs) {
    stop.throwIfAborted();
    if (done.has(seq)) continue;
    done.add(seq);
    const one = await prepare(ports, seq, nextSeq, ports.obstacle);
    if (!("opened" in one)) {
      results.push(one);
      continue;
    }
    // Two letters of the same record, in one insert, would store it twice.
    if (taken.overlaps(one.opened.batches)) await flush();
    taken.add(one.opened.batches);
    open.push(one);
    bytes += one.bytes;
    if (open.length < PLAN_LETTERS_MAX && bytes < PLAN_BYTES_MAX) continue;
    await flush();
  }
  await flush();
  return results;
}

async function own(ports: RetryPorts, signal: AbortSignal): Promise<Claim<RetryState>> {
  const { register, clock, owner, leaseMs } = ports;
  // A plan's insert may still be on its way: only the lease says when it will not arrive any more.
  const lease = { register, clock, owner, leaseMs, mayRelease: ({ plan }: RetryState) => plan === null };
  const patience = AbortSignal.timeout(leaseMs + WAIT_MS);
  const claim = await acquire(lease, async () => NOBODY, AbortSignal.any([signal, patience]));
  if (claim !== undefined) return claim;
  signal.throwIfAborted();
  const by = (await register.read())?.value.owner ?? "";
  throw new RelogError("dead_letters_busy", `another retry of generation ${ports.generation} runs (${by})`, { retryAfterS: 5 });
}

/** Carries out plans, one at a time. */
class PlanOfLetters {
  readonly #ports: RetryPorts;
  readonly #claim: Claim<RetryState>;
  readonly #stop: AbortSignal;

  constructor(ports: RetryPorts, claim: Claim<RetryState>, stop: AbortSignal) {
    this.#ports = ports;
    this.#claim = claim;
    this.#stop = stop;
  }

  async fresh(prepared: readonly Prepared[]): Promise<RetryResult[]> {
    const letters = prepared.map(({ letter }) => letter.seq);
    const plan = { letters, token: newBatchId(this.#ports.clock.now()), classes: classesFor(batchesOf(prepared), this.#ports.tenants) };
    await this.#claim.change({ plan });
    this.#ports.failpoint("retry-planned");
    return await this.#settle(plan, prepared);
  }

  /**
   * A plan that another retry left: its letters are read again, and those that are gone had their end. One that may not be tried
   * any more (its generation was made anew) is left alone: what the other one sent has arrived by now or never will.
   */
  async resume(plan: RetryPlan): Promise<RetryResult[]> {
    await this.#ports.site(() => this.#claim.deadline).kill(plan.token);
    const nextSeq = counter();
    const prepared: Prepared[] = [];
    const results: RetryResult[] = [];
    for (const seq of plan.letters) {
      const one = await prepare(this.#ports, seq, nextSeq, this.#ports.obstacle);
      if ("opened" in one) prepared.push(one);
      else if (one.reason !== "not_found") results.push(one);
    }
    return [...results, ...(await this.#settle(plan, prepared))];
  }

  async #settle({ letters, token, classes }: RetryPlan, prepared: readonly Prepared[]): Promise<RetryResult[]> {
    const { site, events, failpoint, record, remove } = this.#ports;
    /** By the number of the message in the plan. */
    const refusals = new Map<number, { readonly reason: string; readonly detail: string; readonly records: number }>();
    async function park({ message, reason, detail, lines }: Refused, seqOf: (message: StoredMessage) => Batch): Promise<void> {
      const { seq, envelope } = seqOf(message);
      const records = (refusals.get(seq)?.records ?? 0) + (lines === "all" ? envelope.records : lines.split(",").length);
      refusals.set(seq, { reason, detail, records });
    }
    const batches = batchesOf(prepared);
    const byMessage = new Map(batches.map((batch) => [batch.message, batch]));
    const settler = new Settler(
      site(() => this.#claim.deadline, classes ?? classesFor(batches, this.#ports.tenants)),
      (refused) => park(refused, (message) => byMessage.get(message)!),
      events,
      failpoint,
    );
    const plan = { from: letters[0] ?? 0, to: letters.at(-1) ?? 0, token };
    await settler.found(plan, batches, this.#stop);
    failpoint("retry-settled");
    const results = prepared.map((one) => resultOf(one, refusals));
    if (results.length > 0) await record(token, results);
    failpoint("retry-recorded");
    for (const { seq, outcome } of results) {
      if (outcome !== "stored") continue;
      await remove(seq);
      failpoint("retry-removed");
    }
    await this.#claim.change({ plan: null });
    return results;
  }
}

/** After settling, every record of the messages is in the table unless it was refused. */
function resultOf(
  one: Prepared,
  refusals: ReadonlyMap<number, { readonly reason: string; readonly detail: string; readonly records: number }>,
): RetryResult {
  const again = one.opened.batches.flatMap(({ seq }) => refusals.get(seq) ?? []);
  const stored = recordsOf(one.opened) - again.reduce((sum, { records }) => sum + records, 0);
  const refusal = again[0] ?? one.opened.refusal;
  if (refusal === undefined) return result(one.letter.seq, one.letter.tenant, "stored", "", "", stored);
  return refusedResult(one, refusal, stored);
}

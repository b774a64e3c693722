// How verification is put together: for the command line, and for a rebuild.

import type { Library } from "../../lib/archive/library.ts";
import { ArchiveDamaged } from "../../lib/archive/library.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Envelope } from "../../lib/event/envelope.ts";
import type { Policy } from "../../lib/event/retention.ts";
import { mayHaveLeft } from "../../lib/event/retention.ts";
import type { Checkpoint } from "../../lib/projector/checkpoint.ts";
import { checkpointKey } from "../../lib/projector/checkpoint.ts";
import type { Findings } from "../../lib/replay/rebuild.ts";
import { comparedTable } from "../../lib/store/compare.ts";
import { generationDatabase } from "../../lib/store/migrate.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import { walkDropped } from "../../lib/streams/dropped.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import { LINES_CHARS_MAX, liveLog, walkLetters } from "../../lib/streams/walk.ts";
import { formatComparison, formatVerification } from "../../lib/verify/format.ts";
import type { Side } from "../../lib/verify/generations.ts";
import { compareGenerations } from "../../lib/verify/generations.ts";
import type {
  Comparison,
  Expired,
  Gone,
  Letter,
  LoggedMessage,
  LogSource,
  Progress,
  Verification,
  VerifyPorts,
} from "../../lib/verify/ports.ts";
import { verifyGeneration } from "../../lib/verify/verify.ts";
import type { Projection } from "./projection.ts";

const SEALED_HOLE = "the archive sealed it as a hole";
const SKIPPED = "it was to be skipped";
const BOUNDS = { messagesMax: 512, bytesMax: 4 * 2 ** 20 };

/**
 * The log: the streams as they are, and the archive of what they have let go.
 * @param skipDamaged takes a damaged object for a hole; else it is thrown
 */
export function wholeLog(nc: NatsConnection, library: Library | undefined, skipDamaged = false): LogSource {
  const live = liveLog(nc);
  if (library === undefined) return live;
  return {
    async spans(shard) {
      await library.refresh(shard);
      const [now] = await live.spans(shard);
      const sealed = (await library.incarnations(shard)).filter((created) => created !== now!.created);
      const before = sealed.map(async (created) => ({ created, from: 1, to: (await library.manifests(shard, created)).at(-1)!.to }));
      return [...(await Promise.all(before)), now!];
    },
    async *walk(shard, created, from, to, signal) {
      const [now] = await live.spans(shard);
      if (now!.created !== created)
        return yield* sealed(library, skipDamaged, shard, created, { kind: "gone", from, to, evidence: "" }, signal);
      for await (const item of live.walk(shard, created, from, to, signal)) {
        if (item.kind === "message") yield item;
        else yield* sealed(library, skipDamaged, shard, created, item, signal);
      }
    },
    async payload(shard, created, seq) {
      const { messages } = await library.read(shard, created, seq, { ...BOUNDS, messagesMax: 1 });
      if (messages[0] !== undefined) return messages[0].payload;
      const [now] = await live.spans(shard);
      return now!.created === created ? await live.payload(shard, created, seq) : undefined;
    },
  };
}

/** The log from a sequence of today's streams on. */
function lateLog(log: LogSource, fromSeq: number): LogSource {
  return {
    ...log,
    async spans(shard) {
      const now = (await log.spans(shard)).at(-1)!;
      return [{ ...now, from: Math.max(now.from, fromSeq) }];
    },
  };
}

/** What the archive holds of sequences that the stream does not. */
async function* sealed(
  library: Library,
  skipDamaged: boolean,
  shard: number,
  created: string,
  { from, to, evidence }: Gone,
  signal: AbortSignal,
): AsyncGenerator<LoggedMessage | Gone, void, undefined> {
  await library.refresh(shard);
  for (let next = from; next <= to; ) {
    signal.throwIfAborted();
    const { messages, missing } = await library.read(shard, created, next, BOUNDS).catch((error: unknown) => {
      if (!(skipDamaged && error instanceof ArchiveDamaged)) throw error;
      return { messages: [], missing: { from: next, to: error.to } };
    });
    for (const message of messages) {
      if (message.seq > to) return;
      const { seq, subject, storedMs } = message;
      yield { kind: "message", seq, subject, storedMs, header: (name) => message.header(name) };
      next = seq + 1;
    }
    if (messages.length > 0) continue;
    const end = Math.min(to, missing?.to ?? to);
    const known = await library.covers(shard, created, next);
    yield { kind: "gone", from: next, to: end, evidence: known ? SEALED_HOLE : evidence || (skipDamaged ? SKIPPED : "") };
    next = end + 1;
  }
}

/** What of the log a generation was made of. */
export interface MadeOf {
  /** Batches that were wanted. */
  readonly wanted?: (envelope: Envelope) => boolean;
  /** The first sequence of each stream. */
  readonly fromSeq?: number;
  /** Whether what neither stream nor archive can give was passed over. */
  readonly skipMissing?: boolean;
}

/** Checks one generation of the parts' site. */
export async function verifying(
  parts: Projection,
  generation: number,
  signal: AbortSignal,
  progress?: Progress,
  { wanted, fromSeq, skipMissing }: MadeOf = {},
): Promise<Verification> {
  const { nc, library, policy, settings } = parts;
  const { born } = (await generationsRegister(nc, settings.site).read()).value;
  const { table, progress: at } = sideOf(parts, generation);
  const whole = wholeLog(nc, library, skipMissing);
  const ports: VerifyPorts = {
    log: fromSeq === undefined ? whole : lateLog(whole, fromSeq),
    table,
    progress: at,
    letters: (end) => lettersOf(nc, settings.site, generation, end),
    expired: leftBy(policy, born[generation] ?? 0),
    deleted: policy.isDeleted,
    ...(wanted === undefined ? {} : { wanted }),
  };
  const { site, shards } = settings;
  return await verifyGeneration(ports, { site, generation, shards }, signal, progress);
}

/**
 * What may have left the tables of a generation that was begun then, or is about to: rows keep the class that they were stored
 * with, so under any class that the tenant had since; and all of a deleted tenant, until it is certified that nothing is left.
 */
function leftBy(policy: Policy, bornMs: number): Expired {
  return (tenant, dayNs) =>
    policy.isDeleted(tenant) ? !policy.isErased(tenant) : mayHaveLeft(policy, tenant, dayNs, systemClock.now(), bornMs);
}

/** What is parked, and what was parked and then dropped. */
export async function* lettersOf(nc: NatsConnection, site: string, generation: number, signal: AbortSignal): AsyncGenerator<Letter> {
  yield* walkLetters(nc, site, generation, signal);
  const { born } = (await generationsRegister(nc, site).read()).value;
  const since = (tenant: string): number => Math.max(born[generation] ?? 0, born[bornKey(generation, tenant)] ?? 0);
  for await (const letter of walkDropped(nc, site, generation, since, signal))
    yield { ...letter, whole: letter.lines.length < LINES_CHARS_MAX, payload: async () => undefined };
}

/** Where the register of generations says when a tenant's rows were last made anew in a generation. */
export function bornKey(generation: number, tenant: string): string {
  return `${generation}/${tenant}`;
}

/** Checks two generations of the parts' site against each other. */
export async function comparing(
  parts: Projection,
  [a, b]: readonly [number, number],
  signal: AbortSignal,
  progress?: Progress,
): Promise<Comparison> {
  const { nc, policy, settings } = parts;
  const { born } = (await generationsRegister(nc, settings.site).read()).value;
  const expired = leftBy(policy, Math.min(born[a] ?? 0, born[b] ?? 0));
  const ports = { log: liveLog(nc), sides: [sideOf(parts, a), sideOf(parts, b)] as const, expired };
  return await compareGenerations(ports, settings.shards, signal, progress);
}

function sideOf({ nc, clickhouse, settings: { site } }: Projection, generation: number): Side {
  return {
    name: `${site}/${generation}`,
    table: comparedTable(clickhouse, generationDatabase(generation)),
    progress: async (shard) => (await register<Checkpoint>(nc, checkpointKey(site, generation, shard)).read())?.value,
  };
}

/** The part of a result that is about one tenant. */
export function findingsOfTenant(result: Verification, tenant: string): Findings {
  const first = result.findings.find((finding) => finding.tenant === tenant);
  const days = result.days.filter((day) => day.tenant === tenant);
  const { lines } = findingsOf(result);
  const why =
    first === undefined ? `${days.length} days of tenant ${tenant} differ` : `${first.kind}: ${first.detail} (batch ${first.batch})`;
  return { ok: first === undefined && days.length === 0 && result.verdict !== "uncertain", lines, why };
}

/** The result as a rebuild reports it. */
export function findingsOf(result: Verification | Comparison): Findings {
  const text = "names" in result ? formatComparison(result) : formatVerification(result);
  const [first] = result.findings;
  const why = first && `${first.kind}: ${first.detail} (tenant ${first.tenant}, batch ${first.batch})`;
  return { ok: result.ok, lines: text.split("\n").filter((line) => line !== ""), why: why ?? `the verdict is ${result.verdict}` };
}

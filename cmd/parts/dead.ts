// How operating on dead letters is put together: for the command line, and for the scheduler's HTTP API.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Library } from "../../lib/archive/library.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { RelogError } from "../../lib/base/errors.ts";
import type { DeadMetricsPorts } from "../../lib/dead/metrics.ts";
import type { DeadPorts } from "../../lib/dead/ports.ts";
import type { StoredMessage } from "../../lib/event/envelope.ts";
import type { Policy } from "../../lib/event/retention.ts";
import { isExpired } from "../../lib/event/retention.ts";
import type { Checkpoint } from "../../lib/projector/checkpoint.ts";
import { checkpointKey } from "../../lib/projector/checkpoint.ts";
import { failpointFrom } from "../../lib/projector/failpoint.ts";
import { judgeWanted } from "../../lib/projector/message.ts";
import type { RetryPorts, RetryState } from "../../lib/projector/retry.ts";
import { NOBODY, retryKey, retryLetters, tryRetry } from "../../lib/projector/retry.ts";
import { siteOf } from "../../lib/projector/site.ts";
import type { Rebuild } from "../../lib/replay/job.ts";
import { isFinished, rebuildKey } from "../../lib/replay/job.ts";
import { engineTimeMs, inserter, killInserts, presence } from "../../lib/store/insert.ts";
import { generationDatabase } from "../../lib/store/migrate.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import type { DeadLetterHead } from "../../lib/streams/dead-letters.ts";
import {
  countDeadLetters,
  deadLetterState,
  listDeadLetters,
  readDeadLetter,
  readOrigin,
  removeDeadLetter,
} from "../../lib/streams/dead-letters.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import { acquire } from "../../lib/streams/lease.ts";
import { recordOperation } from "../../lib/streams/operations.ts";
import type { Projection } from "./projection.ts";

type DeadParts = Pick<Projection, "nc" | "clickhouse" | "settings" | "policy" | "owner" | "log">;

/** Letters that a summary counts at most. */
const COUNTED_MAX = 200_000;

/** @param origin finds the message of a letter beyond its stream: the archive, when there is one */
export function deadLetters(parts: DeadParts, origin: (head: DeadLetterHead) => Promise<StoredMessage | undefined> = none): DeadPorts {
  const { nc, log } = parts;
  const { site } = parts.settings;
  const where = hostname();
  const originOf = async (head: DeadLetterHead) => (await readOrigin(nc, head)) ?? (await origin(head));
  const retryPorts = (generation: number, who: string): RetryPorts => ({
    ...projecting(parts, generation),
    letter: (seq) => readDeadLetter(nc, seq),
    origin: originOf,
    obstacle: obstacles(nc, site, parts.policy),
    remove: (seq) => removeDeadLetter(nc, seq),
    async record(token, results) {
      const count = (outcome: string): number => results.filter((one) => one.outcome === outcome).length;
      const letters = results.map(({ seq, tenant, outcome, reason }) => [seq, tenant, outcome, reason]);
      const data = { site, generation, stored: count("stored"), refused: count("refused"), letters };
      await recordOperation(nc, { what: "dead_letters_retried", who, where, data, id: token });
      log.info({ who, site, generation, stored: data.stored, refused: data.refused }, "dead letters retried");
    },
  });
  async function generations(): Promise<readonly number[]> {
    const { followed, building } = (await generationsRegister(nc, site).read()).value;
    return building === null ? followed : [...followed, building];
  }
  return {
    site,
    log,
    list: (filter, page) => listDeadLetters(nc, filter, page),
    count: (filter) => countDeadLetters(nc, filter, COUNTED_MAX),
    read: (seq) => readDeadLetter(nc, seq),
    origin: originOf,
    generations,
    async unfinished() {
      const open = async (generation: number): Promise<boolean> => {
        const state = (await register<RetryState>(nc, retryKey(site, generation)).read())?.value;
        return state !== undefined && !isClosed(state);
      };
      const found: number[] = [];
      for (const generation of await generations()) if (await open(generation)) found.push(generation);
      return found;
    },
    retry: (generation, seqs, who, signal) => retryLetters(retryPorts(generation, who), seqs, signal),
    tryRetry: (generation, seqs) => tryRetry(retryPorts(generation, ""), seqs),
    remove: (seq) => removeDeadLetter(nc, seq),
    record: (operation) => recordOperation(nc, { ...operation, where }),
  };
}

async function none(): Promise<undefined> {
  return undefined;
}

/** Finds the message of a letter in the archive, whichever stream of the shard it was in. */
export function archivedOrigin(library: Library | undefined): (head: DeadLetterHead) => Promise<StoredMessage | undefined> {
  if (library === undefined) return none;
  return async ({ shard, originSeq, originStoredMs }) => {
    await library.refresh(shard);
    for (const created of await library.incarnations(shard)) {
      const { messages } = await library.read(shard, created, originSeq, { messagesMax: 1, bytesMax: 1 });
      const [found] = messages;
      if (found?.seq === originSeq && (originStoredMs === undefined || found.storedMs === originStoredMs)) return found;
    }
    return undefined;
  };
}

/** What the gauges of lib/dead/metrics.ts ask. */
export function deadLetterWatch(nc: NatsConnection): DeadMetricsPorts {
  return { state: () => deadLetterState(nc), count: (scannedMax) => countDeadLetters(nc, {}, scannedMax) };
}

/** The part of a retry that is the same as in a shard's worker: one generation's table, its fence and its judge. */
function projecting(parts: DeadParts, generation: number) {
  const { nc, clickhouse, settings, policy, log } = parts;
  const store = {
    insert: inserter(clickhouse),
    presence: presence(clickhouse),
    kill: (token: string) => killInserts(clickhouse, token, settings.cluster),
    timeMs: () => engineTimeMs(clickhouse),
  };
  let waits: string | undefined;
  return {
    generation,
    register: register<RetryState>(nc, retryKey(settings.site, generation)),
    clock: systemClock,
    // Two retries of one process are two owners.
    owner: `${parts.owner}/${randomUUID()}`,
    leaseMs: settings.leaseMs,
    judge: judgeWanted(({ tenant, maxTimestamp }) => !isExpired(policy, tenant, maxTimestamp, systemClock.now())),
    site: siteOf(store, generationDatabase(generation), systemClock),
    tenants: policy,
    events: {
      doubt: () => undefined,
      refused: (_plan: unknown, code: number | undefined, message: string) =>
        log.info({ generation, code, why: message.slice(0, 300) }, "the engine refuses records of a retry; looking for which"),
      waiting(why: string | undefined) {
        if (why !== undefined && why !== waits) log.warn({ generation, why: why.slice(0, 300) }, "the retry waits for the engine");
        waits = why;
      },
      stored: () => undefined,
    },
    failpoint: failpointFrom<string>(settings.failpoint),
  };
}

/** Why a letter cannot be retried now: someone else may still store its records. */
function obstacles(nc: NatsConnection, site: string, { refresh, isDeleted }: Policy): RetryPorts["obstacle"] {
  const checkpoints = new Map<string, Checkpoint>();
  let known: Promise<void> | undefined;
  return async (letter) => {
    const { tenant, generation, shard, originSeq } = letter;
    // Once for all letters, while the retry is owned: whoever deletes a tenant waits for its end, or is known by now.
    known ??= refresh();
    await known;
    if (isDeleted(tenant))
      return { reason: "tenant_deleted", detail: `tenant ${tenant} was deleted; the letter is removed with its records` };
    const rebuild = (await register<Rebuild>(nc, rebuildKey(site)).read())?.value;
    if (rebuild !== undefined && !isFinished(rebuild) && rebuild.spec.tenant === tenant && rebuild.generation === generation)
      return { reason: "rebuild_running", detail: `the rebuild of tenant ${tenant} is not finished` };
    const key = checkpointKey(site, generation, shard);
    const seen = checkpoints.get(key);
    if (seen !== undefined && isSettled(seen, letter)) return undefined;
    const now = (await register<Checkpoint>(nc, key).read())?.value;
    if (now === undefined || !isSettled(now, letter))
      return { reason: "not_settled", detail: `the projector is not past sequence ${originSeq} of ${letter.stream} yet; retry it later` };
    checkpoints.set(key, now);
    return undefined;
  };
}

/** Whether the projection is past a letter's message, or past the whole stream that it was in. */
function isSettled({ next, stream }: Checkpoint, { originSeq, originStoredMs }: DeadLetterHead): boolean {
  return next > originSeq || (originStoredMs !== undefined && Date.parse(stream) > originStoredMs);
}

/**
 * Makes sure that no retry of a generation is under way, for whoever is about to project records again that a retry may hold
 * (the rebuild of a tenant, which has said so in its own register before: a retry that begins later sees that and leaves them).
 * @throws RelogError dead_letters_busy
 */
export async function noRetryUnderWay(
  parts: Pick<DeadParts, "nc" | "settings" | "owner">,
  generation: number,
  signal: AbortSignal,
): Promise<void> {
  const { nc, settings } = parts;
  const { leaseMs } = settings;
  const seat = register<RetryState>(nc, retryKey(settings.site, generation));
  const owner = `${parts.owner}/${randomUUID()}`;
  const patience = AbortSignal.any([signal, AbortSignal.timeout(2 * leaseMs)]);
  await using claim = await acquire(
    { register: seat, clock: systemClock, owner, leaseMs, mayRelease: isClosed },
    async () => NOBODY,
    patience,
  );
  signal.throwIfAborted();
  if (claim === undefined || !isClosed(claim.value))
    throw new RelogError(
      "dead_letters_busy",
      `a retry of generation ${generation}'s dead letters runs, or was interrupted: \`relog dead retry\``,
    );
}

const isClosed = ({ plan }: RetryState): boolean => plan === null;

// How usage is counted in a process: each one that asks for it follows the streams' headers. The scheduler's part is meter-jobs.ts.

import { systemClock } from "../../lib/base/clock.ts";
import { messageOf } from "../../lib/base/errors.ts";
import type { Health } from "../../lib/base/health.ts";
import { every, sleep } from "../../lib/base/loop.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import type { ReleaseQuota } from "../../lib/deferred/release.ts";
import { STREAMS } from "../../lib/event/envelope.ts";
import type { Register } from "../../lib/streams/cas.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import type { Followed, FollowFrom } from "../../lib/streams/follow-headers.ts";
import { followHeaders } from "../../lib/streams/follow-headers.ts";
import type { KeptSnapshot } from "../../lib/usage/keep.ts";
import { Meter } from "../../lib/usage/meter.ts";
import { readMetered } from "../../lib/usage/metered.ts";
import { QuotaDecider, UTC } from "../../lib/usage/quota.ts";
import { SNAPSHOT_VERSION } from "../../lib/usage/snapshot.ts";
import { Calendars, earliestMonthMs } from "../../lib/usage/windows.ts";
import type { Accounts } from "./accounts.ts";

const READ_RETRY_MS = 500;
const PRUNE_MS = 10 * 60_000;

/** Where the meter of a shard is remembered. */
export function snapshotOf(nc: NatsConnection, shard: number): Register<KeptSnapshot> {
  return register<KeptSnapshot>(nc, `meter.${shard}`);
}

/** Usage as a process has it. */
export class Metering {
  readonly shards: number;
  readonly calendars = new Calendars();
  readonly meter: Meter;
  readonly quotas: QuotaDecider;
  readonly #directory: Pick<Accounts["directory"], "known">;
  readonly #gates: boolean;
  readonly #health: Health;
  readonly #log: Telemetry["log"];
  readonly #read = Promise.withResolvers<void>();
  readonly #startedMs = systemClock.monotonicMs();
  /** Shards that are not read to where they ended when they were begun; the rest is a matter of milliseconds. */
  readonly #unread = new Map<number, number>();
  #begun = false;

  /** @param gates whether this process must not get traffic while a tenant has quotas and usage is not read */
  constructor({ directory }: Accounts, shards: number, gates: boolean, health: Health, { log, gauge }: Telemetry) {
    this.shards = shards;
    const zoneOf = (tenant: string): string => directory.known(tenant).account.quotas.time_zone ?? UTC;
    this.meter = new Meter(shards, this.calendars, zoneOf, systemClock.now);
    this.quotas = new QuotaDecider(this.meter, this.calendars, systemClock.now);
    this.#directory = directory;
    this.#gates = gates;
    this.#health = health;
    this.#log = log;
    for (let shard = 0; shard < shards; shard++) this.#unread.set(shard, Number.POSITIVE_INFINITY);
    gauge("relog_usage_tenants", "Tenants with usage in their current month.", [], (one) => one.set(this.meter.size));
    const passed = "Sequences of the LOGS streams that usage passed over: gone, or no batch.";
    gauge("relog_usage_passed_over", passed, [], (one) => one.set(this.meter.passedOver));
    // The accounts may have been read before.
    for (const { tenant, quotas } of directory.accounts()) this.quotas.set(tenant, quotas);
    directory.onChange((tenant) => {
      this.quotas.set(tenant, directory.known(tenant).account.quotas);
      this.meter.rezone(tenant);
      if (this.#begun) this.#tell();
    });
  }

  /**
   * Follows the streams on a connection until the signal aborts; the accounts must have been read. Resolves when every shard is
   * read to its end, or when no tenant has quotas, or at the abort.
   */
  async begin(nc: NatsConnection, signal: AbortSignal): Promise<void> {
    this.#begun = true;
    const shards = [...this.#unread.keys()].map((shard) => this.#follow(nc, shard, signal));
    for (const task of [...shards, every(PRUNE_MS, async () => this.meter.prune(), signal)])
      task.catch((error: unknown) => {
        this.#log.error({ err: error }, "usage is not followed any more");
        this.#health.warn("usage", `not followed any more: ${messageOf(error)}`);
      });
    const stopped = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => stopped.resolve(), { once: true });
    this.#tell();
    await Promise.race([this.#read.promise, stopped.promise]);
  }

  /** What the release of deferred records goes by: unknown on usage that is not read, and nothing of a tenant that was deleted. */
  get release(): ReleaseQuota {
    return {
      left: (tenant) => {
        if (this.#directory.known(tenant).account.status === "deleted") return { records: 0, bytes: 0 };
        return this.meter.ready ? this.quotas.left(tenant) : undefined;
      },
      stored: (message) => this.quotas.stored(message),
    };
  }

  #tell(): void {
    if (!this.meter.ready && this.#unread.size === 0) {
      this.meter.ready = true;
      this.#log.info({ tenants: this.meter.size, ms: Math.round(systemClock.monotonicMs() - this.#startedMs) }, "usage is read");
    }
    const blind = !this.meter.ready && this.quotas.held.size > 0;
    const why = blind ? `not read yet: ${[...this.#unread.keys()].map(STREAMS.logs).join(", ")}` : undefined;
    if (this.#gates) this.#health.notReady("usage", why);
    else this.#health.warn("usage", why);
    if (!blind) this.#read.resolve();
  }

  #progress(shard: number): void {
    const end = this.#unread.get(shard);
    if (end === undefined || this.meter.position(shard).next <= end) return;
    this.#unread.delete(shard);
    this.#tell();
  }

  /** Where a shard's fold goes on: at its snapshot, or with the current months. */
  async #restore(nc: NatsConnection, shard: number, signal: AbortSignal): Promise<FollowFrom> {
    while (!signal.aborted) {
      try {
        const kept = (await snapshotOf(nc, shard).read())?.value;
        this.#fault(shard, undefined);
        if (kept === undefined || kept.version !== SNAPSHOT_VERSION) break;
        this.meter.restore(shard, kept);
        return { created: kept.stream, next: kept.next };
      } catch (error) {
        this.#fault(shard, `the snapshot cannot be read: ${messageOf(error)}`);
        await sleep(READ_RETRY_MS, signal);
      }
    }
    return { sinceMs: earliestMonthMs(systemClock.now()) };
  }

  async #follow(nc: NatsConnection, shard: number, signal: AbortSignal): Promise<void> {
    const from = await this.#restore(nc, shard, signal);
    const followed: Followed = {
      begun: (at) => this.#follows(shard, at),
      message: ({ seq, storedMs, header }) => {
        this.meter.fold(shard, seq, readMetered(header, storedMs));
        this.#progress(shard);
      },
      gone: (_from, to) => {
        this.meter.pass(shard, to);
        this.#progress(shard);
      },
      fault: (why) => this.#fault(shard, why && `cannot be read, and stays as it was: ${why}`),
    };
    await followHeaders(nc, STREAMS.logs(shard), from, followed, signal);
  }

  #follows(shard: number, { created, next, lastSeq, firstSeq }: Parameters<Followed["begun"]>[0]): void {
    const [stream, before] = [STREAMS.logs(shard), { ...this.meter.position(shard) }];
    if (before.created === undefined) {
      // Without a snapshot.
      if (next === firstSeq && firstSeq > 1)
        this.#log.warn({ stream, firstSeq }, "what the stream has let go of the current month is not in the usage");
    } else if (created !== before.created || next < before.next)
      this.#log.warn({ stream, created, next, before }, "a stream was made again or lost its end: usage goes on from there");
    this.meter.begin(shard, created, next);
    if (this.#unread.has(shard)) this.#unread.set(shard, lastSeq);
    this.#progress(shard);
  }

  #fault(shard: number, why: string | undefined): void {
    this.#health.warn(`usage of ${STREAMS.logs(shard)}`, why);
  }
}

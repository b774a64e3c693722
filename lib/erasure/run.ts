// The removal of deleted tenants from a site: a job of the scheduler, under a lease for each tenant.
//
// Promises: nothing is certified that was not counted to be zero, after every projection had learned of the tombstone; killed at
// any step, the next runner goes on with what was counted; other tenants' rows are not touched; what cannot be done now waits,
// with its reason in the register, and holds up no other tenant; what it was billed for is closed before it goes. Bounded: one
// tenant after the other.

import { messageOf } from "../base/errors.ts";
import { sleep } from "../base/loop.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Claim } from "../streams/lease.ts";
import { acquire, LeaseLost } from "../streams/lease.ts";
import type { Erasure, Found } from "./job.ts";
import { added, begun, earlier, later } from "./job.ts";
import type { Certified, ErasurePorts, Tombstone } from "./ports.ts";

const POLL_MS = 1_000;
const LOOK_MS = 200;
/** How long a lease of another runner is waited for before the next tenant gets its turn. */
const PATIENCE_LEASES = 2;

/** Removes what is left of every deleted tenant, until the signal aborts. @throws the faults of NATS */
export async function runErasures(ports: ErasurePorts, log: Logger, signal: AbortSignal): Promise<void> {
  const said = new Map<string, string>();
  await ports.tidy();
  for (; !signal.aborted; await sleep(POLL_MS, signal)) {
    for (const tombstone of ports.open()) {
      if (signal.aborted) return;
      const { tenant } = tombstone;
      const why = await eraseTenant(ports, tombstone, log, signal);
      if (why !== undefined && said.get(tenant) !== why) log.warn({ tenant, why }, "the removal of a deleted tenant waits");
      if (why === undefined) said.delete(tenant);
      else said.set(tenant, why);
    }
  }
}

/** One tenant's removal, as far as it goes now. Returns why it does not go on, undefined when it is done. @throws the faults of NATS */
export async function eraseTenant(
  ports: ErasurePorts,
  { tenant, deleted, seq }: Tombstone,
  log: Logger,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { clock, owner, leaseMs } = ports;
  const lease = { register: ports.register(tenant), clock, owner, leaseMs };
  const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_LEASES * leaseMs)]);
  const claim = await acquire(lease, async () => begun(tenant, deleted, seq), patience);
  if (claim === undefined) return "another scheduler works at it";
  let done = false;
  try {
    await using _ = claim;
    const stop = AbortSignal.any([signal, claim.lost]);
    const why = await phases(ports, claim, stop);
    if (why !== undefined) {
      await claim.change({ error: why });
      return why;
    }
    done = true;
    log.info({ tenant, rows: claim.value.removed.reduce((sum, { rows }) => sum + rows, 0) }, "a deleted tenant is removed and certified");
  } catch (error) {
    if (signal.aborted || error instanceof LeaseLost) return messageOf(error);
    await claim.change({ error: messageOf(error) }).catch(() => undefined);
    return messageOf(error);
  }
  if (done) await ports.forget(tenant);
  return undefined;
}

/** Returns what it waits for, undefined at the end. */
async function phases(ports: ErasurePorts, claim: Claim<Erasure>, stop: AbortSignal): Promise<string | undefined> {
  for (;;) {
    stop.throwIfAborted();
    const { phase } = claim.value;
    ports.failpoint(phase);
    switch (phase) {
      case "waiting": {
        const unaware = await ports.unaware(claim.value.tombstone, stop);
        if (unaware.length > 0) return `${unaware.join(", ")} may not know of the deletion yet`;
        await claim.change({ phase: "counting", error: null });
        break;
      }
      case "counting":
        await claim.change(await counted(ports, claim.value));
        break;
      case "removing": {
        const why = await removed(ports, claim, stop);
        if (why !== undefined) return why;
        await claim.change({ phase: "checking", error: null });
        break;
      }
      case "checking":
        await claim.change(await checked(ports, claim.value));
        break;
      case "certifying":
        await ports.certify(claim.value.tenant, await certificateOf(ports, claim.value));
        ports.failpoint("certified");
        return undefined;
      default:
        return phase satisfies never;
    }
  }
}

/** What there is, before any of it goes: a runner that is killed after the removal has the figures of before. */
async function counted(ports: ErasurePorts, { tenant, first, last, deadLetters, deferred }: Erasure): Promise<Partial<Erasure>> {
  const found: Found[] = [];
  let times = { first, last };
  for (const table of await ports.tables()) {
    const there = await ports.rows(table, tenant);
    found.push({ table, rows: there.rows });
    times = { first: earlier(times.first, there.first), last: later(times.last, there.last) };
  }
  const messages = await ports.messages(tenant);
  return {
    phase: "removing",
    counted: found,
    ...times,
    deadLetters: deadLetters + messages.deadLetters,
    deferred: deferred + messages.deferred,
  };
}

async function removed(ports: ErasurePorts, claim: Claim<Erasure>, stop: AbortSignal): Promise<string | undefined> {
  const { tenant, counted } = claim.value;
  // What leaves the tables is in the usage before; nothing of the tenant is stored any more.
  await ports.closeUsage();
  const running: string[] = [];
  for (const { table, rows } of counted) {
    if (rows === 0) continue;
    // Also when an earlier runner has: what is asked for twice does no harm. But what still runs is not asked for at every look.
    if ((await ports.removal(table)) === undefined) await ports.remove(table, tenant);
    else running.push(table);
  }
  for (const { table } of counted) {
    for (let why = await ports.removal(table); why !== undefined; why = await ports.removal(table)) {
      if (why !== "") return `${table}: ${why}`;
      await sleep(LOOK_MS, stop);
      stop.throwIfAborted();
    }
  }
  for (const table of running)
    if ((await ports.rows(table, tenant)).rows > 0) return `${table}: a removal that was under way was not this one`;
  ports.failpoint("removed");
  await ports.purge(tenant);
  const keys = await ports.forgetNames(tenant);
  await claim.change({ registers: [...new Set([...claim.value.registers, ...keys])].sort() });
  ports.failpoint("purged");
  return undefined;
}

/** Counts again. Whatever is found came after the removal began, which has taken all that was counted: it begins another round. */
async function checked(ports: ErasurePorts, { tenant, counted, removed }: Erasure): Promise<Partial<Erasure>> {
  let left = 0;
  for (const table of await ports.tables()) {
    const there = await ports.rows(table, tenant);
    left += there.rows + there.counted;
  }
  const { deadLetters, deferred } = await ports.messages(tenant);
  const again = left + deadLetters + deferred > 0;
  return { phase: again ? "counting" : "certifying", counted: [], removed: added(removed, counted) };
}

async function certificateOf(ports: ErasurePorts, job: Erasure): Promise<Certified> {
  const { tenant, deleted, tombstone, removed: tables, first, last, deadLetters, deferred, registers } = job;
  return {
    site: ports.site,
    deleted,
    tombstone,
    verified: new Date(ports.clock.now()).toISOString(),
    tables,
    rows: tables.reduce((sum, { rows }) => sum + rows, 0),
    first_timestamp: first,
    last_timestamp: last,
    dead_letters: deadLetters,
    deferred,
    registers,
    remains: await ports.remains(tenant),
  };
}

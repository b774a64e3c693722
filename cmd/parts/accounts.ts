// How the accounts are put together: every process follows them, the query service and the commands change them.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { AccountPorts, Actor, Run } from "../../lib/accounts/accounts.ts";
import { accountCommands } from "../../lib/accounts/accounts.ts";
import type { AccountsApiPorts } from "../../lib/accounts/api.ts";
import type { AuditPorts } from "../../lib/accounts/audit.ts";
import type { Home } from "../../lib/accounts/authenticate.ts";
import { authenticator } from "../../lib/accounts/authenticate.ts";
import { Directory } from "../../lib/accounts/directory.ts";
import { newKey } from "../../lib/accounts/keys.ts";
import type { LastUsePorts, LastUses } from "../../lib/accounts/last-use.ts";
import { LastUse } from "../../lib/accounts/last-use.ts";
import { systemClock } from "../../lib/base/clock.ts";
import { messageOf, RelogError } from "../../lib/base/errors.ts";
import type { Health } from "../../lib/base/health.ts";
import { sleep } from "../../lib/base/loop.ts";
import type { Principal } from "../../lib/base/principal.ts";
import type { Telemetry } from "../../lib/base/telemetry.ts";
import { newBatchId } from "../../lib/event/ids.ts";
import { register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import type { AccountsReader } from "../../lib/streams/control.ts";
import { accountOf, accountsReader, appendAccount, readControlBack } from "../../lib/streams/control.ts";
import { accountOrQuotaOf } from "../../lib/streams/quota-events.ts";
import { classesOfSettings } from "./tenants.ts";

/** How long what was noted of keys' uses may take to be written when the process leaves. */
const FINISH_MS = 2_000;
const BOOTSTRAP_RETRY_MS = 2_000;

/** Folds the accounts of a connection into a directory. */
export function readerInto(nc: NatsConnection, directory: Directory): AccountsReader {
  return accountsReader(nc, ({ seq, subject, payload }) => directory.apply(seq, accountOf(subject)!, payload));
}

/** What changing accounts needs of a connection. */
export function accountPorts(nc: NatsConnection, directory: Directory, reader: AccountsReader): AccountPorts {
  return {
    directory,
    refresh: () => reader.toEnd(),
    append: (message, lastSeq) => appendAccount(nc, message.tenant, message, message.id, lastSeq),
    nowMs: systemClock.now,
    newId: () => newBatchId(systemClock.now()),
    classes: () => classesOfSettings(nc),
  };
}

/** What reading the audit needs of a connection. */
export function auditPorts(nc: NatsConnection): AuditPorts {
  return { readBack: (before, messagesMax) => readControlBack(nc, before, messagesMax), tenantOf: accountOrQuotaOf };
}

/** Where it is remembered when keys were last used. */
export function lastUsePorts(nc: NatsConnection): LastUsePorts {
  const seat = (bucket: number) => register<LastUses>(nc, `last-use.${bucket}`);
  return { read: (bucket) => seat(bucket).read(), write: (bucket, value, revision) => seat(bucket).write(value, revision) };
}

/** The accounts as a service has them. */
export interface Accounts extends AsyncDisposable {
  readonly directory: Directory;
  /** Learns everything that CONTROL holds by now. @throws RelogError stream_unavailable */
  toEnd(): Promise<void>;
  readonly authenticate: (credential: string) => Principal | undefined;
  readonly lastUse: LastUse;
  /** Whether everything was read once. */
  readonly ready: boolean;
  /**
   * Follows them on a connection until they are disposed: whoever is leaving still answers calls, and must hear of keys that end.
   * @param signal ends the first reading. Resolves when that is done, or at its abort
   */
  begin(nc: NatsConnection, signal: AbortSignal): Promise<void>;
  /** @throws RelogError stream_unavailable before `begin` */
  readonly run: Run;
}

/** @param name of the process */
export function openAccounts(name: string, home: Home, health: Health, { log, gauge }: Telemetry): Accounts {
  const directory = new Directory(systemClock);
  const owner = `${name}/${hostname()}/${process.pid}/${randomUUID()}`;
  let [ready, ports] = [false, undefined as { run: Run; uses: LastUsePorts; reader: AccountsReader } | undefined];
  const started = (): NonNullable<typeof ports> => {
    if (ports === undefined) throw new RelogError("stream_unavailable", "NATS is not connected yet", { retryAfterS: 2 });
    return ports;
  };
  const uses: LastUsePorts = {
    read: async (bucket) => await started().uses.read(bucket),
    write: async (bucket, value, revision) => await started().uses.write(bucket, value, revision),
  };
  const lastUse = new LastUse(uses, systemClock, owner);
  const authenticate = authenticator(
    home,
    directory,
    () => ready,
    (keyId) => lastUse.note(keyId),
  );
  health.notReady("accounts", "not read yet: NATS is not connected");
  gauge("relog_tenants", "Tenants, those not deleted.", [], (one) => one.set(directory.size));
  const tasks: Promise<void>[] = [];
  const leave = new AbortController();
  let begunMs = 0;
  let said: string | undefined;

  /** Only the first reading holds up the process; later faults leave what is known. */
  function told(why: string | undefined): void {
    if (why === undefined && !ready) {
      ready = true;
      const ms = Math.round(systemClock.monotonicMs() - begunMs);
      log.info({ tenants: directory.size, position: directory.position, ms }, "accounts are read");
    }
    if (!ready && why !== said) log.warn({ why }, "the accounts cannot be read yet");
    said = why;
    health.notReady("accounts", ready ? undefined : `not read yet: ${why}`);
    const passedOver = directory.passedOver;
    const odd = passedOver === 0 ? undefined : `${passedOver} events of CONTROL are of a later version, or malformed, and were passed over`;
    health.warn("accounts", why ?? odd);
  }

  return {
    directory,
    toEnd: async () => await started().reader.toEnd(),
    authenticate,
    lastUse,
    get ready() {
      return ready;
    },
    run: async (...args) => await started().run(...args),
    async begin(nc, signal) {
      begunMs = systemClock.monotonicMs();
      const reader = readerInto(nc, directory);
      ports = { run: accountCommands(accountPorts(nc, directory, reader)), uses: lastUsePorts(nc), reader };
      signal.addEventListener("abort", () => ready || leave.abort(), { once: true });
      const first = Promise.withResolvers<void>();
      const follow = reader.follow((why) => {
        told(why);
        if (ready) first.resolve();
      }, leave.signal);
      tasks.push(follow.finally(() => first.resolve()));
      tasks.push(lastUse.run((error) => log.debug({ err: error }, "last uses of keys could not be written"), leave.signal));
      await first.promise;
    },
    async [Symbol.asyncDispose]() {
      leave.abort();
      await Promise.race([Promise.allSettled(tasks), sleep(FINISH_MS)]);
    },
  };
}

/**
 * Makes sure of the installation's own tenant, and of a first operator's key where the settings name none and none ever was.
 * Tries until it is done, or until it cannot be.
 */
export async function ensureInstallation(accounts: Accounts, home: Home, { log }: Telemetry, signal: AbortSignal): Promise<void> {
  const actor: Actor = { who: "relog", where: `query@${hostname()}`, operator: true };
  while (!signal.aborted) {
    try {
      await accounts.run(home.tenant, { type: "ensure_tenant" }, actor);
      if (home.key === "" && !accounts.directory.operatorEver) {
        const made = newKey();
        const { keys } = await accounts.run(home.tenant, { type: "ensure_operator_key", key: made.id, hash: made.hash }, actor);
        if (keys.has(made.id))
          log.warn({ key: made.key, tenant: home.tenant }, "this is the first operator's key; it is shown here and never again");
      }
      return;
    } catch (error) {
      const final = error instanceof RelogError && error.entry.remedy === "fix";
      log.warn(
        { why: messageOf(error) },
        final ? "the installation's own tenant cannot be used" : "the installation's own tenant is not sure yet",
      );
      if (final) return;
      await sleep(BOOTSTRAP_RETRY_MS, signal);
    }
  }
}

/** What lib/accounts/api.ts needs of a service. */
export function accountsApiPorts(name: string, accounts: Accounts, connected: () => NatsConnection): AccountsApiPorts {
  const { directory, run, lastUse } = accounts;
  return {
    directory,
    ready: () => accounts.ready,
    run,
    audit: { readBack: async (before, messagesMax) => await readControlBack(connected(), before, messagesMax), tenantOf: accountOrQuotaOf },
    lastUsed: (keyIds) => lastUse.of(keyIds),
    nowMs: systemClock.now,
    where: `${name}@${hostname()}`,
  };
}

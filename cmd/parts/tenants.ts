// What the accounts say of tenants' records, for whoever projects, verifies or removes them: no keys are needed for that.
//
// Promises: nothing is stored before the accounts were read once, since it would get a wrong class, or be of a deleted tenant;
// a change is known within a second; later faults leave what is known, with a warning.

import { Directory } from "../../lib/accounts/directory.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Health } from "../../lib/base/health.ts";
import type { Logger } from "../../lib/base/telemetry.ts";
import type { Policy, Retention } from "../../lib/event/retention.ts";
import { retentionFromWords, retentionOf } from "../../lib/event/retention.ts";
import { keysOf, register } from "../../lib/streams/cas.ts";
import type { NatsConnection } from "../../lib/streams/connection.ts";
import type { AccountsReader } from "../../lib/streams/control.ts";
import { readerInto } from "./accounts.ts";

/** The accounts before the settings. @param settings asked each time @param site whose removals `isErased` speaks of */
export function policyOf(
  directory: Directory,
  reader: Pick<AccountsReader, "toEnd">,
  { site, settings }: { readonly site: string; readonly settings: () => Retention },
): Policy {
  const accountOf = (tenant: string) => directory.known(tenant).account;
  const ofSettings = (tenant: string): number => retentionOf(settings(), tenant);
  return {
    daysOf: (tenant) => accountOf(tenant).retentionDays ?? ofSettings(tenant),
    daysSince(tenant, sinceMs) {
      const { retentionDays, retentionUntil } = accountOf(tenant);
      const before = [...retentionUntil].flatMap(([days, untilMs]) => (untilMs >= sinceMs ? [days] : []));
      return [...new Set([retentionDays, ...before].map((days) => days ?? ofSettings(tenant)))];
    },
    isDeleted: (tenant) => accountOf(tenant).status === "deleted",
    isErased: (tenant) => accountOf(tenant).erased.some((certificate) => certificate.site === site),
    position: () => directory.position,
    refresh: () => reader.toEnd(),
  };
}

export interface Followed extends AsyncDisposable {
  readonly directory: Directory;
  readonly reader: AccountsReader;
}

/** The accounts of a connection, read now and followed until it is disposed: for commands. @throws RelogError stream_unavailable */
export async function openDirectory(nc: NatsConnection): Promise<Followed> {
  const directory = new Directory(systemClock);
  const reader = readerInto(nc, directory);
  await reader.toEnd();
  return untilDisposed(directory, reader, (leave) => reader.follow(() => undefined, leave));
}

/** Follows the accounts until it is disposed. Returns when they are read for the first time, or at the abort; says meanwhile why not. */
export async function followDirectory(nc: NatsConnection, health: Health, log: Logger, signal: AbortSignal): Promise<Followed> {
  const directory = new Directory(systemClock);
  const reader = readerInto(nc, directory);
  const first = Promise.withResolvers<void>();
  let [ready, said] = [false, undefined as string | undefined];
  const told = (why: string | undefined): void => {
    if (why === undefined && !ready) log.info({ tenants: directory.size, position: directory.position }, "accounts are read");
    ready ||= why === undefined;
    if (!ready && why !== said) log.warn({ why }, "the accounts cannot be read yet: nothing is projected");
    said = why;
    health.notReady("accounts", ready ? undefined : `not read yet: ${why}`);
    health.warn("accounts", why);
    if (ready) first.resolve();
  };
  const followed = untilDisposed(directory, reader, (leave) =>
    reader.follow(told, AbortSignal.any([signal, leave])).finally(() => first.resolve()),
  );
  await first.promise;
  return followed;
}

function untilDisposed(directory: Directory, reader: AccountsReader, follow: (leave: AbortSignal) => Promise<void>): Followed {
  const leave = new AbortController();
  const ended = follow(leave.signal);
  return {
    directory,
    reader,
    async [Symbol.asyncDispose]() {
      leave.abort();
      await ended;
    },
  };
}

/** Classes that the settings of every site's projectors give, as their registers of generations say. @throws NatsError */
export async function classesOfSettings(nc: NatsConnection): Promise<number[]> {
  const found = new Set<number>();
  for (const key of await keysOf(nc, "generations.*")) {
    const words = (await register<{ readonly retention?: string }>(nc, key).read())?.value.retention ?? "";
    if (words === "") continue;
    const { days, tenants } = retentionFromWords(words);
    for (const one of [days, ...tenants.values()]) found.add(one);
  }
  return [...found];
}

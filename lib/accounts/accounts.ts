// Changing accounts: a command in, its events in the stream and in memory when the call returns.
//
// Promises: the decision is made on everything that the stream held, or is made again: two processes that change a tenant at
// once lose nothing; a command whose outcome is unknown is settled by reading, never repeated blindly; who, when and where are
// part of every message.

import { RelogError } from "../base/errors.ts";
import { backoffMs, sleep } from "../base/loop.ts";
import { CLASSES_MAX } from "../event/retention.ts";
import type { Account } from "./account.ts";
import { evolve } from "./account.ts";
import type { Command } from "./decider.ts";
import { decide } from "./decider.ts";
import type { Directory } from "./directory.ts";
import type { AccountMessage } from "./events.ts";
import { ACCOUNTS_VERSION } from "./events.ts";

/** Who asks, and from where: as the audit says it. */
export interface Actor {
  readonly who: string;
  readonly where: string;
  readonly operator: boolean;
}

export interface AccountPorts {
  readonly directory: Directory;
  /** Applies everything that the stream holds by now. @throws RelogError stream_unavailable */
  refresh(): Promise<void>;
  /**
   * Appends a message if the tenant's last one is at `lastSeq` (0: there is none).
   * "refused" when it is not, "unknown" when no answer came.
   */
  append(message: AccountMessage, lastSeq: number): Promise<"stored" | "refused" | "unknown">;
  nowMs(): number;
  newId(): string;
  /** Classes of retention that the settings of the projectors give; none when it is absent. @throws NatsError */
  classes?(): Promise<readonly number[]>;
}

const TRIES_MAX = 40;
const RETRY_FIRST_MS = 5;
const RETRY_MAX_MS = 300;

/** Does one command to a tenant. Returns the account afterwards. @throws RelogError as the decider says, or accounts_busy, outcome_unknown */
export type Run = (tenant: string, command: Command, actor: Actor) => Promise<Account>;

export function accountCommands(ports: AccountPorts): Run {
  const { directory } = ports;
  return async (tenant, command, { who, where, operator }) => {
    const id = ports.newId();
    let unknown = false;
    for (let attempt = 0; attempt < TRIES_MAX; attempt++) {
      if (attempt > 0) await sleep(backoffMs(attempt - 1, RETRY_FIRST_MS, RETRY_MAX_MS));
      try {
        await ports.refresh();
      } catch (error) {
        throw unknown ? outcomeUnknown(tenant, error) : error;
      }
      const { account, lastSeq } = directory.known(tenant);
      // An earlier attempt of ours was stored though its answer was lost.
      if (directory.hasApplied(id)) return account;
      const nowMs = ports.nowMs();
      const events = decide(account, command, { nowMs, operator });
      if (events instanceof RelogError) throw events;
      if (command.type === "set_limits") await requireClass(ports, tenant, command.retentionDays ?? undefined);
      if (events.length === 0) return account;
      const time = new Date(nowMs).toISOString();
      const outcome = await ports.append({ version: ACCOUNTS_VERSION, id, time, tenant, who, where, events }, lastSeq);
      unknown ||= outcome === "unknown";
      if (outcome === "stored") {
        const stored = events.reduce((now, event) => evolve(now, event, nowMs, who), account);
        // It is done: that it cannot be read back now must not keep a new key's secret from whoever asked for it.
        return await ports.refresh().then(
          () => directory.known(tenant).account,
          () => stored,
        );
      }
    }
    if (unknown) throw outcomeUnknown(tenant);
    throw new RelogError("accounts_busy", `tenant "${tenant}" changed ${TRIES_MAX} times while it was to be changed`, { retryAfterS: 1 });
  };
}

function outcomeUnknown(tenant: string, cause?: unknown): RelogError {
  return new RelogError("outcome_unknown", `nobody says whether the change of tenant "${tenant}" is stored; look before you try again`, {
    cause,
  });
}

/**
 * Few classes over the whole installation: each is a partition a day. Two processes that add one each at the same moment may
 * pass the bound by one, which projectors bear.
 */
async function requireClass({ directory, classes }: AccountPorts, tenant: string, days: number | undefined): Promise<void> {
  if (days === undefined) return;
  const used = new Set(await classes?.());
  for (const one of directory.accounts())
    if (one.tenant !== tenant && one.status !== "deleted" && one.retentionDays !== null) used.add(one.retentionDays);
  if (used.has(days) || used.size < CLASSES_MAX) return;
  const listed = [...used].sort((a, b) => a - b).join(", ");
  throw new RelogError("too_many_classes", `retention_days ${days} would be one class more than ${CLASSES_MAX}; there are: ${listed}`);
}

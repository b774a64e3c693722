// What a key opens on NATS, and which open connections it still holds.
//
// Promises: a connection has one tenant, and its name says which key opened it; nothing of the key itself is in it. A key
// that has ended holds no connection; one that this process has not heard of yet is not taken for an ended one.

import { RelogError } from "../base/errors.ts";
import type { Principal } from "../base/principal.ts";
import { SUBJECTS } from "../event/envelope.ts";
import { inboxesOf } from "../event/inbox.ts";
import type { Account } from "./account.ts";
import { isLive } from "./account.ts";
import type { Home } from "./authenticate.ts";
import type { Directory } from "./directory.ts";
import { hashOf, keyIdOf } from "./keys.ts";

/** The shape of lib/streams/auth-callout.ts's grants. */
export interface NatsGrant {
  readonly kind: "grant";
  readonly name: string;
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
  readonly untilMs: number | null;
}

/** What is known of the key behind a connection. */
export type Hold = { readonly kind: "ended" | "unknown" } | { readonly kind: "held"; readonly untilMs: number | null };

const GONE_MAX = 10_000;
const NAME = /^key\.([a-z0-9][a-z0-9_-]{0,62})\.([a-z0-9-]{1,40})$/;

/** The tenant and the key that a connection's name says; undefined when no key opened it. */
export function holderOf(name: string): { readonly tenant: string; readonly keyId: string } | undefined {
  const match = NAME.exec(name);
  return match === null ? undefined : { tenant: match[1]!, keyId: match[2]! };
}

export class NatsAccess {
  readonly #home: Home;
  readonly #directory: Pick<Directory, "known">;
  readonly #nowMs: () => number;
  /** Names of connections whose keys had ended and are forgotten, the last GONE_MAX of them. */
  readonly #gone = new Set<string>();
  /** A process that was given another bootstrap key knows the connections of the one before. */
  readonly #bootstrap: string | undefined;

  constructor(home: Home, directory: Pick<Directory, "known">, nowMs: () => number) {
    this.#home = home;
    this.#directory = directory;
    this.#nowMs = nowMs;
    this.#bootstrap = home.key === "" ? undefined : `env-${hashOf(home.key).slice(0, 12)}`;
  }

  /** What the connection of a principal with the scope "ingest" may do. */
  grant({ tenant, keyId }: Principal): NatsGrant {
    return {
      kind: "grant",
      name: `key.${tenant}.${keyId === "env" ? this.#bootstrap : keyId}`,
      publish: [SUBJECTS.ingest(tenant)],
      subscribe: inboxesOf(tenant, this.#home.tenant).map((prefix) => `${prefix}.>`),
      untilMs: this.#directory.known(tenant).account.keys.get(keyId)?.expiresMs ?? null,
    };
  }

  /** Whether a tenant's messages are taken: it is active, or the installation's own before anything was said of it. */
  mayIngest(tenant: string): boolean {
    const { status } = this.#directory.known(tenant).account;
    return status === "active" || (status === "absent" && tenant === this.#home.tenant);
  }

  /** Whether the connection of this name is still its key's. */
  hold(name: string): Hold {
    const holder = holderOf(name);
    if (holder === undefined) return { kind: "unknown" };
    const { tenant, keyId } = holder;
    const { status, keys } = this.#directory.known(tenant).account;
    if (keyId.startsWith("env-")) {
      const held = keyId === this.#bootstrap && tenant === this.#home.tenant && this.mayIngest(tenant);
      return held ? { kind: "held", untilMs: null } : { kind: "ended" };
    }
    if (status === "disabled" || status === "deleted") return { kind: "ended" };
    const key = keys.get(keyId);
    if (key === undefined) return { kind: this.#gone.has(name) ? "ended" : "unknown" };
    return isLive(key, this.#nowMs()) ? { kind: "held", untilMs: key.expiresMs } : { kind: "ended" };
  }

  /**
   * Who publishes to a tenant's subject: a key that its connection names; undefined when it is another tenant's or has ended, or the
   * tenant may not send.
   * @param sender the connection's name as the server vouches for it; undefined: a service of ours
   */
  caller(tenant: string, sender: string | undefined): Principal | undefined {
    if (!this.mayIngest(tenant)) return undefined;
    if (sender === undefined) return { tenant, keyId: "subject", scopes: ["ingest"] };
    const holder = holderOf(sender);
    if (holder?.tenant !== tenant || this.hold(sender).kind === "ended") return undefined;
    return { tenant, keyId: holder.keyId === this.#bootstrap ? "env" : holder.keyId, scopes: ["ingest"] };
  }

  /** Names of the connections that a change of an account is about: of keys that ended, or whose end was moved. */
  touched(before: Account): string[] {
    const { tenant } = before;
    const { account: now } = this.#directory.known(tenant);
    const stopped = before.status === "active" && now.status !== "active";
    const names: string[] = [];
    for (const id of before.keys.keys()) if (!now.keys.has(id)) this.#forgotten(`key.${tenant}.${id}`);
    for (const { id, revokedMs, expiresMs } of before.keys.values()) {
      const after = now.keys.get(id);
      const moved = after === undefined || after.revokedMs !== null || after.expiresMs !== expiresMs;
      if (revokedMs === null && (stopped || moved)) names.push(`key.${tenant}.${id}`);
    }
    if (tenant === this.#home.tenant && this.#bootstrap !== undefined && now.status !== "active")
      names.push(`key.${tenant}.${this.#bootstrap}`);
    return names;
  }

  #forgotten(name: string): void {
    this.#gone.add(name);
    if (this.#gone.size > GONE_MAX) for (const oldest of this.#gone) return void this.#gone.delete(oldest);
  }
}

/** How a question ended: `later` when it cannot be decided yet. */
export type NatsOutcome = "allowed" | "no_key" | "unknown_key" | "no_scope" | "later";

/** Decides whether a connection may be. @param told of each decision, with the id of the key that was shown when it has one */
export function natsDecision(
  authenticate: (credential: string) => Principal | undefined,
  access: Pick<NatsAccess, "grant">,
  told: (outcome: NatsOutcome, keyId: string | undefined, host: string) => void,
): (connecting: { readonly credential: string | undefined; readonly host: string }) => NatsGrant | { readonly kind: "refuse" | "later" } {
  return ({ credential, host }) => {
    const ends = (outcome: NatsOutcome, kind: "refuse" | "later" = "refuse") => {
      told(outcome, keyIdOf(credential ?? ""), host);
      return { kind };
    };
    if (credential === undefined) return ends("no_key");
    let principal: Principal | undefined;
    try {
      principal = authenticate(credential);
    } catch (error) {
      if (error instanceof RelogError && error.entry.remedy === "retry") return ends("later", "later");
      throw error;
    }
    if (principal === undefined) return ends("unknown_key");
    if (!principal.scopes.includes("ingest")) return ends("no_scope");
    told("allowed", principal.keyId, host);
    return access.grant(principal);
  };
}

// What the removal of a tenant needs of the rest of the house.

import type { Clock } from "../base/clock.ts";
import type { Register } from "../streams/cas.ts";
import type { Erasure, Found, Phase } from "./job.ts";

/** What is left of a tenant where it is let age out. */
export interface Remains {
  readonly streams: readonly {
    readonly stream: string;
    readonly messages: number;
    readonly first_seq: number;
    readonly last_seq: number;
    readonly until: string | null;
  }[];
  readonly archive: {
    readonly segments: number;
    readonly messages: number;
    readonly records: number;
    readonly bytes: number;
  } | null;
  readonly kept: readonly string[];
}

/** What is certified of one site. */
export interface Certified {
  readonly site: string;
  readonly deleted: string;
  readonly tombstone: number;
  readonly verified: string;
  readonly tables: readonly Found[];
  readonly rows: number;
  readonly first_timestamp: string | null;
  readonly last_timestamp: string | null;
  readonly dead_letters: number;
  readonly deferred: number;
  readonly registers: readonly string[];
  readonly remains: Remains;
}

export interface Tombstone {
  readonly tenant: string;
  /** RFC 3339. */
  readonly deleted: string;
  /** Its sequence in CONTROL. */
  readonly seq: number;
}

export interface ErasurePorts {
  readonly site: string;
  readonly clock: Clock;
  readonly owner: string;
  readonly leaseMs: number;
  /** Deleted tenants for which this site has certified nothing yet. */
  open(): readonly Tombstone[];
  register(tenant: string): Register<Erasure>;
  /** Removes registers of removals that are certified: a runner that was killed may have left one. */
  tidy(): Promise<void>;
  /** Removes the register. */
  forget(tenant: string): Promise<void>;
  /**
   * Whoever may still store records with less than what CONTROL says at `seq`: names of checkpoints. None when every plan that is
   * made from now on leaves the tenant out, and none of before is open.
   */
  unaware(seq: number, signal: AbortSignal): Promise<readonly string[]>;
  /** Every table of the site that holds records. */
  tables(): Promise<readonly string[]>;
  /** What a table holds of a tenant: rows, or counts of them. */
  rows(
    table: string,
    tenant: string,
  ): Promise<{ readonly rows: number; readonly counted: number; readonly first: string | null; readonly last: string | null }>;
  /** Takes over usage that the tables count and nothing else does. */
  closeUsage(): Promise<void>;
  /** Begins to remove it from a table; nothing happens when the table is gone. */
  remove(table: string, tenant: string): Promise<void>;
  /** Undefined when every removal from a table has ended, else why one fails, or "". */
  removal(table: string): Promise<string | undefined>;
  /** Dead letters and deferred messages of a tenant. */
  messages(tenant: string): Promise<{ readonly deadLetters: number; readonly deferred: number }>;
  purge(tenant: string): Promise<void>;
  /** Removes registers that name it. Returns their keys. */
  forgetNames(tenant: string): Promise<readonly string[]>;
  remains(tenant: string): Promise<Remains>;
  /** Appends the certificate to the tenant's account; nothing happens when it is there. */
  certify(tenant: string, certificate: Certified): Promise<void>;
  readonly failpoint: (step: Phase | "removed" | "purged" | "certified") => void;
}

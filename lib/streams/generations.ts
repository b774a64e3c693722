// Which generations of a site's projection there are, and which of them answers: the pointer that a rebuild flips.
//
// Promises: everything stands in one register, changed by compare-and-set, so that a flip is one atomic step; a reader
// learns of a change within milliseconds, and at the latest after the poll; a fault of NATS leaves the last known state.

import { z } from "zod";
import { Bell, sleep } from "../base/loop.ts";
import { STREAMS } from "../event/envelope.ts";
import type { Register } from "./cas.ts";
import { register } from "./cas.ts";
import type { NatsConnection } from "./connection.ts";

/** A table with records that were brought back from the archive. Times are RFC 3339. */
const sideTable = z.object({
  since: z.string(),
  until: z.string(),
  /** Empty means every tenant. */
  tenant: z.string(),
  expires: z.string(),
  /** Whether it holds all of its range yet. */
  complete: z.boolean(),
});

const generations = z.object({
  /** The generation that queries read. */
  live: z.number().int(),
  /** Generations that projectors keep up to date; `live` is one of them. */
  followed: z.array(z.number().int()),
  /** The generation that a rebuild is making, and that only the rebuild projects. */
  building: z.number().int().nullable(),
  /** A generation that the projectors leave alone for a moment, and who asked for it. */
  hold: z.object({ by: z.string(), generation: z.number().int() }).nullable(),
  side: z.record(z.string(), sideTable),
  /** Generations whose tables are being dropped; nobody works on them any more. */
  dropping: z.array(z.number().int()).default([]),
  /** When each generation was begun, milliseconds since the epoch: what is older and bears its number was of another one. */
  born: z.record(z.string(), z.number()).default({}),
  /** The retention of the projectors' settings, for tenants whose accounts say none, as lib/event/retention.ts puts it into words; empty before the first one started. */
  retention: z.string().default(""),
  /** Counts writes, so that no two written values are equal. */
  writes: z.number().int(),
});

export type SideTable = Readonly<z.infer<typeof sideTable>>;
export type Generations = Readonly<z.infer<typeof generations>>;

const FIRST: Generations = {
  live: 1,
  followed: [1],
  building: null,
  hold: null,
  side: {},
  dropping: [],
  born: {},
  retention: "",
  writes: 0,
};
const TRIES_MAX = 50;

const keyOf = (site: string): string => `generations.${site}`;

export interface GenerationsRegister {
  /** The current state and its revision; the first state, at revision 0, when nothing was written yet. @throws NatsError */
  read(): Promise<{ readonly value: Generations; readonly revision: number }>;
  /**
   * Changes the state atomically: `decide` sees the current one and returns what differs, or undefined to leave it.
   * It may be asked several times. @returns the state afterwards @throws what `decide` throws, NatsError
   */
  change(decide: (now: Generations) => Partial<Omit<Generations, "writes">> | undefined): Promise<Generations>;
}

/** The generations of a site. */
export function generationsRegister(nc: NatsConnection, site: string): GenerationsRegister {
  const seat: Register<Generations> = register<Generations>(nc, keyOf(site));
  async function read(): Promise<{ value: Generations; revision: number }> {
    const entry = await seat.read();
    return entry === undefined ? { value: FIRST, revision: 0 } : { value: generations.parse(entry.value), revision: entry.revision };
  }
  return {
    read,
    async change(decide) {
      for (let tries = 0; tries < TRIES_MAX; tries++) {
        const { value, revision } = await read();
        const patch = decide(value);
        if (patch === undefined) return value;
        const next = { ...value, ...patch, writes: value.writes + 1 };
        if ((await seat.write(next, revision)) !== undefined) return next;
      }
      throw new Error(`the generations of site ${site} changed ${TRIES_MAX} times while they were to be changed`);
    },
  };
}

const POLL_MS = 2_000;
const HINT_DELAY_MS = 10;

/**
 * Calls `onChange` with the state now and after every change, in order, until the signal aborts.
 * A revision of 0 means that there is no state: a new installation, or one whose streams were lost.
 * @param onFault told when the state cannot be read, which is tried again, and with undefined when it can be
 */
export async function followGenerations(
  nc: NatsConnection,
  site: string,
  onChange: (now: Generations, revision: number) => void,
  onFault: (error: unknown | undefined) => void,
  signal: AbortSignal,
): Promise<void> {
  const { read } = generationsRegister(nc, site);
  const wake = new Bell();
  // A write passes here as an ordinary message, also one that is then refused: it is a hint to look, nothing more.
  const hints = nc.subscribe(`$KV.${STREAMS.projections}.${keyOf(site)}`, { callback: () => wake.ring() });
  try {
    for (let known = -1; !signal.aborted; ) {
      try {
        const { value, revision } = await read();
        onFault(undefined);
        // Not only later ones: a bucket that was lost and made again counts from the beginning.
        if (revision !== known) onChange(value, revision);
        known = revision;
      } catch (error) {
        onFault(error);
      }
      // The hint comes before the write is decided.
      if (await wake.wait(POLL_MS, signal)) await sleep(HINT_DELAY_MS, signal);
    }
  } finally {
    hints.unsubscribe();
  }
}

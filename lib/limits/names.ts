// Which names of attributes a tenant has had today, so that a day has only so many.
//
// Promises: the hot path asks memory; the day's names are in a register for each tenant, read when a process meets the tenant for
// the first time in a UTC day. New names are merged into it SHARE_AFTER_MS after the first of them, and the other processes are
// told, who read it then: what is in the register is admitted everywhere all day, also after a restart, and is never pushed out.
// Processes that admit the last names within that moment are over by so many; what was written first is in, and of the others'
// names those for which there is no room overflow from then on. Telling may fail: whoever admits a new name reads the register
// before it writes. Kept are hashes of 48 bits, so that a register is bounded whatever the names are: two of 20,000 names are
// taken for one with a chance of one in a million, which admits a name too many. Memory: NAMES_HELD_MAX, then idle tenants are
// forgotten.

import { hash } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { DAY_MS } from "../base/clock.ts";
import { Bell, sleep } from "../base/loop.ts";
import type { LimitsLookup, TenantLimitDefaults } from "./values.ts";
import { ATTRIBUTE_NAMES_HARD_MAX, limitOr } from "./values.ts";

/** A name that is made of the bytes of its UTF-8. */
type Name = string;

export interface NamesOfDay {
  /** UTC, as 2026-01-02. */
  readonly day: string;
  /** HASH_CHARS of each name, in the order they came. */
  readonly names: string;
  /** Who wrote it last. */
  readonly by: string;
}

export interface NamesPorts {
  read(tenant: string): Promise<{ readonly value: NamesOfDay; readonly revision: number } | undefined>;
  write(tenant: string, value: NamesOfDay, revision: number): Promise<number | undefined>;
  /** Tells the other processes that a tenant's register has more now. */
  tell(tenant: string): void;
}

/** What lib/ingest/overflow.ts asks. */
export interface DayOfNames {
  readonly perRecordMax: number;
  admits(name: Name): boolean;
}

const HASH_CHARS = 8;
const loadingId = (tenant: string, day: string): string => `${tenant} ${day}`;
const dayOf = (nowMs: number): string => new Date(nowMs).toISOString().slice(0, "2026-01-02".length);
/** Names that all tenants together may hold in memory: some 100 bytes each. */
const NAMES_HELD_MAX = 500_000;
const TRIES = 5;
const WRITERS = 8;
/** How long after a new name, or after another process's word, the register is read and written: a burst of names is one write. */
const SHARE_AFTER_MS = 50;
/** After a fault it is tried again so much later. */
const FLUSH_EVERY_MS = 1_000;

interface DayLimits {
  readonly perRecordMax: number;
  readonly namesMax: number;
}

/** One tenant's day, as this process knows it. */
class Day implements DayOfNames {
  readonly tenant: string;
  readonly day: string;
  /** When the next day begins, milliseconds since the epoch. */
  readonly endMs: number;
  /** Admitted, by hash; the ones that the register has come first. */
  readonly hashes: Set<string>;
  /** Some admitted names, so that they need no hashing. */
  readonly known = new Set<Name>();
  /** Whether the register may have more than this, or this more than the register. */
  isDirty = false;
  usedMs = 0;
  readonly #limits: () => DayLimits;
  readonly #onDirty: () => void;

  constructor(tenant: string, day: string, hashes: Set<string>, limits: () => DayLimits, onDirty: () => void) {
    this.tenant = tenant;
    this.day = day;
    this.endMs = Date.parse(day) + DAY_MS;
    this.hashes = hashes;
    this.#limits = limits;
    this.#onDirty = onDirty;
  }

  soil(): void {
    this.isDirty = true;
    this.#onDirty();
  }

  get perRecordMax(): number {
    return this.#limits().perRecordMax;
  }

  admits(name: Name): boolean {
    if (this.known.has(name)) return true;
    const id = hashOf(name);
    if (!this.hashes.has(id)) {
      if (this.hashes.size >= this.#limits().namesMax) return false;
      this.hashes.add(id);
      this.soil();
    }
    this.known.add(name);
    return true;
  }

  /** Takes what the register has; of our own names those stay for which there is room behind them. */
  merge(stored: readonly string[]): void {
    const own = [...this.hashes];
    this.hashes.clear();
    for (const id of stored) this.hashes.add(id);
    const { namesMax } = this.#limits();
    let dropped = false;
    for (const id of own) {
      if (this.hashes.has(id)) continue;
      if (this.hashes.size < namesMax) this.hashes.add(id);
      else dropped = true;
    }
    if (dropped) this.known.clear();
  }
}

const hashOf = (name: Name): string => hash("sha256", name, "base64").slice(0, HASH_CHARS);

export class AttributeNames {
  readonly #lookup: LimitsLookup;
  readonly #defaults: TenantLimitDefaults;
  readonly #ports: NamesPorts;
  readonly #clock: Clock;
  readonly #by: string;
  readonly #onFault: (error: unknown | undefined) => void;
  readonly #days = new Map<string, Day>();
  readonly #loading = new Map<string, Promise<Day>>();
  readonly #bell = new Bell();

  /**
   * @param by names this process
   * @param onFault told when a register cannot be read or written, which is tried again, and undefined before each try
   */
  constructor(
    lookup: LimitsLookup,
    defaults: TenantLimitDefaults,
    ports: NamesPorts,
    clock: Clock,
    by: string,
    onFault: (error: unknown | undefined) => void,
  ) {
    this.#lookup = lookup;
    this.#defaults = defaults;
    this.#ports = ports;
    this.#clock = clock;
    this.#by = by;
    this.#onFault = onFault;
  }

  /** What a tenant may have today; a promise when its names are not known here yet. */
  of(tenant: string): DayOfNames | Promise<DayOfNames> {
    const nowMs = this.#clock.now();
    const known = this.#days.get(tenant);
    if (known === undefined || nowMs >= known.endMs) return this.#load(tenant, dayOf(nowMs));
    known.usedMs = nowMs;
    return known;
  }

  /** Another process wrote a tenant's register: it is read soon, if the tenant is known here. */
  heard(tenant: string): void {
    this.#days.get(tenant)?.soil();
    // What is being read now may have been read before.
    void this.#loading.get(loadingId(tenant, dayOf(this.#clock.now())))?.then((day) => day.soil());
  }

  /** Shares what is new, soon after it came, until the signal aborts, and once more then. */
  async run(signal: AbortSignal): Promise<void> {
    for (let isLast = false; !isLast; ) {
      if (await this.#bell.wait(FLUSH_EVERY_MS, signal)) await sleep(SHARE_AFTER_MS, signal);
      isLast = signal.aborted;
      this.#onFault(undefined);
      await this.flush();
    }
  }

  /** Merges what is new into the registers, and forgets tenants that are idle when there are too many names. */
  async flush(): Promise<void> {
    const dirty = [...this.#days.values()].filter(({ isDirty }) => isDirty);
    await Promise.all(
      Array.from({ length: WRITERS }, async () => {
        for (let day = dirty.pop(); day !== undefined; day = dirty.pop()) await this.#write(day).catch(this.#onFault);
      }),
    );
    let held = 0;
    for (const { hashes } of this.#days.values()) held += hashes.size;
    if (held <= NAMES_HELD_MAX) return;
    for (const day of [...this.#days.values()].sort((a, b) => a.usedMs - b.usedMs)) {
      if (held <= NAMES_HELD_MAX) break;
      if (day.isDirty) continue;
      this.#days.delete(day.tenant);
      held -= day.hashes.size;
    }
  }

  #limitsOf(tenant: string): DayLimits {
    const { attributes_per_record, attribute_names_per_day } = this.#lookup(tenant, "").tenant;
    const namesMax = limitOr(attribute_names_per_day, this.#defaults.attributeNamesPerDay) ?? ATTRIBUTE_NAMES_HARD_MAX;
    return { perRecordMax: attributes_per_record ?? Number.POSITIVE_INFINITY, namesMax: Math.min(namesMax, ATTRIBUTE_NAMES_HARD_MAX) };
  }

  #load(tenant: string, day: string): Promise<Day> {
    const id = loadingId(tenant, day);
    let loading = this.#loading.get(id);
    if (loading === undefined) {
      loading = this.#read(tenant, day).finally(() => this.#loading.delete(id));
      this.#loading.set(id, loading);
    }
    return loading;
  }

  async #read(tenant: string, day: string): Promise<Day> {
    let stored: readonly string[] | undefined;
    try {
      stored = storedOf((await this.#ports.read(tenant))?.value, day);
    } catch (error) {
      this.#onFault(error);
    }
    const made = new Day(
      tenant,
      day,
      new Set(stored),
      () => this.#limitsOf(tenant),
      () => this.#bell.ring(),
    );
    // What is admitted meanwhile is merged later.
    made.isDirty = stored === undefined;
    made.usedMs = this.#clock.now();
    this.#days.set(tenant, made);
    return made;
  }

  async #write(day: Day): Promise<void> {
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const found = await this.#ports.read(day.tenant);
      // Another process may be in the next day already: its register is not for this one.
      if (found !== undefined && found.value.day > day.day) {
        day.isDirty = false;
        return;
      }
      const stored = storedOf(found?.value, day.day);
      day.merge(stored);
      day.isDirty = false;
      if (day.hashes.size === stored.length) return;
      const value: NamesOfDay = { day: day.day, names: [...day.hashes].join(""), by: this.#by };
      const revision = await this.#ports.write(day.tenant, value, found?.revision ?? 0).catch((error: unknown) => {
        day.isDirty = true;
        throw error;
      });
      if (revision !== undefined) {
        this.#ports.tell(day.tenant);
        return;
      }
      day.isDirty = true;
    }
  }
}

function storedOf(value: NamesOfDay | undefined, day: string): string[] {
  if (value?.day !== day) return [];
  const stored: string[] = [];
  for (let at = 0; at < value.names.length; at += HASH_CHARS) stored.push(value.names.slice(at, at + HASH_CHARS));
  return stored;
}

// When days and months begin in a time zone of the IANA database.
//
// Promises: pure; every moment is in exactly one day and one month of a zone, and where one ends the next begins, also where a
// clock change takes midnight away or brings it twice, and where a zone leaves a day out; asking for a moment of the day that was
// asked for last is two comparisons. Memory: a few days of each zone that is used.

import { DAY_MS } from "../base/clock.ts";

export interface Window {
  /** Milliseconds since the epoch, included. */
  readonly fromMs: number;
  /** Not included. */
  readonly toMs: number;
}

export interface Windows {
  readonly day: Window;
  readonly month: Window;
}

/** No zone is or was further from UTC. */
const OFFSET_MAX_MS = 26 * 3_600_000;
/** Days of a zone that are remembered: today, and yesterday for what comes late. */
const REMEMBERED_MAX = 4;

/** The calendar of one zone. */
export class Calendar {
  readonly #format: Intl.DateTimeFormat;
  readonly #starts = new Map<number, number>();
  #remembered: Windows[] = [];

  /** @throws RangeError when there is no such zone */
  constructor(zone: string) {
    this.#format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      calendar: "gregory",
      numberingSystem: "latn",
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
  }

  /** The day and the month that a moment is in. */
  at(ms: number): Windows {
    for (const known of this.#remembered) if (ms >= known.day.fromMs && ms < known.day.toMs) return known;
    const made = this.#windowsAt(ms);
    this.#remembered = [made, ...this.#remembered].slice(0, REMEMBERED_MAX);
    return made;
  }

  /** RFC 3339 to the second, with the offset that the zone has then. */
  format(ms: number): string {
    const seconds = Math.floor(ms / 1_000) * 1_000;
    const offsetMinutes = Math.round((this.#localMs(seconds) - seconds) / 60_000);
    const [hours, minutes] = [Math.floor(Math.abs(offsetMinutes) / 60), Math.abs(offsetMinutes) % 60];
    const offset = `${offsetMinutes < 0 ? "-" : "+"}${String(hours).padStart(2, "0")}:${String(minutes).padStart(2, "0")}`;
    return `${new Date(seconds + offsetMinutes * 60_000).toISOString().slice(0, 19)}${offset}`;
  }

  #windowsAt(ms: number): Windows {
    // Where a clock goes back over midnight the same date comes twice; the day is then the one whose start was last.
    let date = this.#dateOf(ms);
    while (this.#start(date + 1) <= ms) date++;
    while (this.#start(date) > ms) date--;
    const local = new Date(date * DAY_MS);
    const [year, month] = [local.getUTCFullYear(), local.getUTCMonth()];
    return {
      day: { fromMs: this.#start(date), toMs: this.#start(date + 1) },
      month: { fromMs: this.#start(Date.UTC(year, month) / DAY_MS), toMs: this.#start(Date.UTC(year, month + 1) / DAY_MS) },
    };
  }

  /** The first moment of a local date (days since 1970-01-01), or of the next one that there is. */
  #start(date: number): number {
    const known = this.#starts.get(date);
    if (known !== undefined) return known;
    let [before, after] = [date * DAY_MS - OFFSET_MAX_MS, date * DAY_MS + OFFSET_MAX_MS];
    while (after - before > 1) {
      const middle = Math.floor((before + after) / 2);
      if (this.#dateOf(middle) >= date) after = middle;
      else before = middle;
    }
    if (this.#starts.size >= STARTS_MAX) this.#starts.clear();
    this.#starts.set(date, after);
    return after;
  }

  #dateOf(ms: number): number {
    return Math.floor(this.#localMs(ms) / DAY_MS);
  }

  /** What the zone's clock shows, as if it were UTC. */
  #localMs(ms: number): number {
    const shown: Partial<Record<Intl.DateTimeFormatPartTypes, number>> = {};
    for (const { type, value } of this.#format.formatToParts(ms)) shown[type] = Number(value);
    return Date.UTC(shown.year!, shown.month! - 1, shown.day!, shown.hour!, shown.minute!, shown.second!);
  }
}

const STARTS_MAX = 64;

/** The calendars of every zone that was asked for. */
export class Calendars {
  readonly #known = new Map<string, Calendar>();

  of(zone: string): Calendar {
    let calendar = this.#known.get(zone);
    if (calendar === undefined) {
      calendar = new Calendar(zone);
      this.#known.set(zone, calendar);
    }
    return calendar;
  }
}

/** Zones are at most this far behind and before UTC. */
const BEHIND_MS = 12 * 3_600_000;
const BEFORE_MS = 14 * 3_600_000;
/** How late a message may be stored after it was observed, and clocks be apart. */
const MARGIN_MS = 3_600_000;

/** Before this nothing was stored that counts into a month that is current somewhere. */
export function earliestMonthMs(nowMs: number): number {
  const behind = new Date(nowMs - BEHIND_MS);
  return Date.UTC(behind.getUTCFullYear(), behind.getUTCMonth()) - BEFORE_MS - MARGIN_MS;
}

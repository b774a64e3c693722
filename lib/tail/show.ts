// A tail's events as lines for people.

import type { TailEvent } from "./client.ts";

interface Shown {
  readonly time: string;
  readonly level: string;
  readonly service: string;
  readonly message: string;
}

/** ANSI colours (ECMA-48 SGR) by level; others have none. */
const COLOURS: Readonly<Record<string, string>> = { trace: "2", debug: "2", warn: "33", error: "31", fatal: "1;31" };
const LEVEL_CELLS = 7;
const TIME_CHARS = "2026-01-02T03:04:05.123".length;

/**
 * `time level service message` of a record, without the end of the line.
 * @param printable makes text of unknown origin harmless
 */
export function shownRecord(data: string, printable: (text: string) => string, colours: boolean): string {
  const { time, level, service, message } = JSON.parse(data) as Shown;
  const paint = (text: string, code: string | undefined): string => (colours && code ? `\u001b[${code}m${text}\u001b[0m` : text);
  const word = paint(printable(level).padEnd(LEVEL_CELLS), COLOURS[level]);
  const from = service === "" ? "-" : printable(service);
  return `${paint(`${printable(time.slice(0, TIME_CHARS))}Z`, "2")} ${word} ${paint(from, "36")} ${printable(message)}`;
}

/** What a tail says of itself, as a sentence. */
export function shownNote({ event, data }: TailEvent): string {
  const value = JSON.parse(data) as { skipped?: { skipped: number; unread: number }; gap?: { shard: number; why: string } };
  if (event === "skipped" && value.skipped !== undefined) {
    const { skipped, unread } = value.skipped;
    const unopened = unread > 0 ? `${skipped > 0 ? " and " : ""}${unread} that were not looked at` : "";
    return `${skipped > 0 || unread === 0 ? `${skipped} records` : ""}${unopened} were skipped: too many at once`;
  }
  if (event === "gap" && value.gap !== undefined) return `records of shard ${value.gap.shard} may be missing: ${value.gap.why}`;
  return `${event}: ${data}`;
}

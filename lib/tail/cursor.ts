// Where a tail stands: one place a shard, as one short text that resumes it.
//
// Promises: a place names the stream that it counts in, so that one that was made again is not taken for the first one; a text
// that is none of ours is refused, and a valid one says nothing but which places to read from: it gives no access to anything.

import { crc32 } from "node:zlib";

/** The next record of a shard: the first one after `line` records of message `seq`. */
export interface Place {
  /** Of the stream's time of creation. */
  readonly tag: string;
  readonly seq: number;
  readonly line: number;
}

const FORMAT = "v1";
const PLACE = /^([0-9a-z]{1,7})-([0-9a-z]{1,11})-([0-9a-z]{1,7})$/;
export const CURSOR_CHARS_MAX = 8_192;

/** A short mark of a stream's time of creation. */
export function tagOf(created: string): string {
  return crc32(created).toString(36);
}

export function writeCursor(places: readonly Place[]): string {
  return `${FORMAT}~${places.map(({ tag, seq, line }) => `${tag}-${seq.toString(36)}-${line.toString(36)}`).join("~")}`;
}

/** The places of a text; undefined when it is no cursor. */
export function readCursor(text: string): Place[] | undefined {
  if (text.length > CURSOR_CHARS_MAX) return undefined;
  const [format, ...parts] = text.split("~");
  if (format !== FORMAT || parts.length === 0) return undefined;
  const places: Place[] = [];
  for (const part of parts) {
    const match = PLACE.exec(part);
    if (match === null) return undefined;
    const [seq, line] = [Number.parseInt(match[2]!, 36), Number.parseInt(match[3]!, 36)];
    if (!Number.isSafeInteger(seq) || seq < 1) return undefined;
    places.push({ tag: match[1]!, seq, line });
  }
  return places;
}

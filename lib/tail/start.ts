// Where a tail begins: now, at a time, or where an earlier one stood.
//
// Promises: what an earlier one had not sent comes first, and nothing twice, as far as the streams still hold it; where they do
// not, the tail says so.

import { RelogError } from "../base/errors.ts";
import type { TailSource } from "../streams/tail.ts";
import type { Place } from "./cursor.ts";
import { readCursor, tagOf } from "./cursor.ts";
import type { TailStart } from "./session.ts";

/** @param cursor of an earlier tail; it comes before `sinceMs` @throws RelogError bad_request, NatsError */
export async function tailStart(source: TailSource, cursor: string | undefined, sinceMs: number | undefined): Promise<TailStart> {
  const places = cursor === undefined ? undefined : placesOf(cursor);
  const heads = await source.heads();
  if (places !== undefined && places.length !== heads.length)
    throw new RelogError("bad_request", `Last-Event-ID speaks of ${places.length} shards, there are ${heads.length}`);
  const gaps: object[] = [];
  const starts = heads.map(async ({ created, firstSeq, lastSeq }, shard): Promise<Place> => {
    const tag = tagOf(created);
    const place = places?.[shard];
    if (place === undefined) {
      const seq = sinceMs === undefined ? undefined : await source.seqAt(shard, sinceMs);
      return { tag, seq: seq ?? lastSeq + 1, line: 0 };
    }
    if (place.tag !== tag) {
      gaps.push({ shard, why: "the stream was made again" });
      return { tag, seq: Math.max(1, firstSeq), line: 0 };
    }
    if (place.seq >= firstSeq) return place;
    gaps.push({
      shard,
      why: "the stream does not hold these sequences any more; some may have been this tenant's",
      from: place.seq,
      to: firstSeq - 1,
    });
    return { tag, seq: firstSeq, line: 0 };
  });
  return { heads, places: await Promise.all(starts), gaps };
}

function placesOf(cursor: string): Place[] {
  const places = readCursor(cursor);
  if (places === undefined) throw new RelogError("bad_request", "Last-Event-ID is not the id of an event of a live tail");
  return places;
}

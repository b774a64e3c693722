// Where the messages of a shard's projection come from, and what can be wrong with that.

import type { ReadStream } from "./gather.ts";

export interface StreamFacts {
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly created: string;
}

/** Where a shard's messages come from: its stream, and the archive of what the stream has let go. */
export interface Source {
  /** Reads the stream that was created then; a stream that was deleted and made again is another one. */
  read(created: string, ...range: Parameters<ReadStream>): ReturnType<ReadStream>;
  /** The stream as it is now. */
  facts(): Promise<StreamFacts>;
  /** Looks for what was archived since the last look, before anything is called gone. */
  readonly look?: () => Promise<void>;
  /** Where a projection begins. */
  first(): Promise<Place>;
  /** Where a projection goes on behind the end of an earlier stream; without it a replaced stream halts the projection. */
  readonly following?: (created: string) => Promise<Place>;
  /** Whether sequences that nobody holds any more may be passed; all may when it is absent. */
  readonly mayPass?: (created: string, hole: Range) => Promise<boolean>;
}

export interface Place {
  readonly stream: string;
  readonly next: number;
}

export interface Range {
  readonly from: number;
  readonly to: number;
}

/** The stream is not the one the checkpoint speaks of. Only a person can say what is right. */
export class StreamReplaced extends Error {
  override readonly name = "StreamReplaced";
}

/** Sequences that neither the stream nor the archive holds, in a projection that does not pass over them unasked. */
export class SequencesMissing extends Error {
  override readonly name = "SequencesMissing";
}

/** A source at a place that moves, read up to an end when there is one: the first place that is not read any more. */
export function readerAt(source: Source, place: () => Place, end: Place | undefined): ReadStream {
  return async (from, bounds) => {
    const { stream } = place();
    const result = await source.read(stream, from, bounds);
    const last = result.missing?.to ?? result.messages.at(-1)?.seq ?? 0;
    if (end === undefined || stream !== end.stream || last < end.next - 1) return result;
    const missing = result.missing && { from: result.missing.from, to: Math.min(result.missing.to, end.next - 1) };
    return { messages: result.messages.filter(({ seq }) => seq < end.next), pending: 0, missing };
  };
}

/** How far a projection that is at `next` is behind its stream. */
export async function lagOf(source: Source, read: ReadStream, next: number) {
  const messages = Math.max(0, (await source.facts()).lastSeq - next + 1);
  const oldest = messages > 0 ? (await read(next, { messagesMax: 1, bytesMax: 1 })).messages[0] : undefined;
  return { messages, oldestMs: oldest?.storedMs };
}

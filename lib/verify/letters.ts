// Dead letters as verification needs them: which lines of which message are parked.

import { decodeBatch } from "../event/decode.ts";
import { STREAMS } from "../event/envelope.ts";
import type { Letter } from "./ports.ts";

export type ParkedLines = "all" | ReadonlySet<number>;

/** A block that claims to be larger than this once decompressed is no batch of ours. */
export const BLOCK_BYTES_MAX = 64 * 2 ** 20;

interface Parked {
  readonly batch: string;
  all: boolean;
  readonly lines: Set<number>;
}

/** What is parked of the shards' messages. */
export class Letters {
  /** By shard and sequence; a stream that was made again may have used a sequence twice, so by batch too. */
  readonly #parked = new Map<string, Parked>();

  static async read(letters: AsyncIterable<Letter>): Promise<Letters> {
    const all = new Letters();
    for await (const letter of letters) await all.#add(letter);
    return all;
  }

  async #add(letter: Letter): Promise<void> {
    const key = `${letter.stream} ${letter.originSeq} ${letter.batch}`;
    const parked = this.#parked.get(key) ?? { batch: letter.batch, all: false, lines: new Set<number>() };
    this.#parked.set(key, parked);
    if (letter.lines === "all") parked.all = true;
    else for (const line of await linesOf(letter)) parked.lines.add(line);
  }

  /** The lines of a message that are parked; undefined when none is. */
  of(shard: number, seq: number, batch: string): ParkedLines | undefined {
    const parked = this.#parked.get(`${STREAMS.logs(shard)} ${seq} ${batch.slice(0, BATCH_CHARS_MAX)}`);
    return parked === undefined ? undefined : parked.all ? "all" : parked.lines;
  }
}

/** A letter keeps this much of a header of its message. */
const BATCH_CHARS_MAX = 128;

async function linesOf(letter: Letter): Promise<Iterable<number>> {
  const listed = letter.lines.split(",").filter((text) => /^\d+$/.test(text));
  if (letter.whole) return listed.map(Number);
  // The list was cut, but the letter holds the records themselves.
  const payload = await letter.payload();
  // The last one may have been cut in two.
  if (payload === undefined || payload.length === 0 || letter.reason === "records_missing") return listed.slice(0, -1).map(Number);
  return (await decodeBatch(payload, BLOCK_BYTES_MAX)).map(({ line }) => line);
}

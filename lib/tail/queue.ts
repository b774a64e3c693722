// What waits for the reader of one tail.
//
// Promises: never more than its bounds in records and bytes (one entry always fits); order is kept; what was skipped is said in
// its place, before the next record that goes in, or at the end when none does; closing drops nothing unless it is told to.

/** Why records were not sent. */
export interface Skipped {
  /** Records that were wanted and not sent: the reader was too slow, or the rate was reached. */
  readonly skipped: number;
  /** Records of batches that were not opened: nobody knows whether they were wanted. */
  readonly unread: number;
}

export type Entry =
  | { readonly kind: "record"; readonly text: string; readonly cursor: string }
  | { readonly kind: "skipped"; readonly skipped: Skipped }
  | { readonly kind: "note"; readonly event: string; readonly text: string };

export interface QueueBounds {
  readonly queueRecordsMax: number;
  readonly queueBytesMax: number;
}

/** Bytes that an entry takes beside its text, rounded up. */
const OVERHEAD_BYTES = 256;

export class TailQueue {
  readonly #bounds: QueueBounds;
  #entries: Entry[] = [];
  #bytes = 0;
  #skipped = 0;
  #unread = 0;
  /** Whether something found no room since the last `take`. */
  #refused = false;
  #closed = false;
  #changed = Promise.withResolvers<void>();
  #room = Promise.withResolvers<void>();

  constructor(bounds: QueueBounds) {
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#entries.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Whether anything is there to take. */
  get waiting(): boolean {
    return this.#entries.length > 0 || this.#skipped + this.#unread > 0;
  }

  get full(): boolean {
    return this.#refused || this.#entries.length >= this.#bounds.queueRecordsMax || this.#bytes >= this.#bounds.queueBytesMax;
  }

  /** Adds a record; false when there is no room for it, or no more. */
  offer(text: string, cursor: string): boolean {
    const size = sizeOf(text) + cursor.length;
    const fits = this.#entries.length === 0 || (!this.full && this.#bytes + size <= this.#bounds.queueBytesMax);
    this.#refused = !fits;
    if (this.#closed || !fits) return false;
    this.#saySkipped();
    this.#push({ kind: "record", text, cursor }, size);
    return true;
  }

  /** Counts what is not sent. */
  skip({ skipped = 0, unread = 0 }: Partial<Skipped>): void {
    this.#skipped += skipped;
    this.#unread += unread;
    this.#changed.resolve();
  }

  /** Adds what must be said, full or not: there are few of these. */
  note(event: string, value: object): void {
    if (this.#closed) return;
    this.#saySkipped();
    const text = JSON.stringify(value);
    this.#push({ kind: "note", event, text }, sizeOf(text));
  }

  /** The last word: nothing goes in afterwards. @param drop what waits is not sent any more */
  close(event: string, value: object, drop: boolean): void {
    if (this.#closed) return;
    if (drop) this.#clear();
    this.note(event, value);
    this.end();
  }

  /** Nothing goes in afterwards, and nobody is told. */
  end(): void {
    this.#closed = true;
    this.#changed.resolve();
    this.#room.resolve();
  }

  /** Takes entries in order, up to about `bytesMax` bytes; what was skipped is said when nothing else waits. */
  take(bytesMax: number): Entry[] {
    if (this.#entries.length === 0) this.#saySkipped();
    let [count, bytes] = [0, 0];
    for (; count < this.#entries.length && bytes < bytesMax; count++) bytes += entryBytes(this.#entries[count]!);
    const taken = this.#entries.splice(0, count);
    this.#bytes -= bytes;
    if (count > 0) {
      this.#refused = false;
      this.#room.resolve();
      this.#room = Promise.withResolvers<void>();
    }
    return taken;
  }

  /** Resolves when there is something to take, or nothing will be. */
  async filled(): Promise<void> {
    while (!this.waiting && !this.#closed) {
      this.#changed = Promise.withResolvers<void>();
      await this.#changed.promise;
    }
  }

  /** Resolves when something was taken, or nothing will be. */
  async taken(): Promise<void> {
    if (!this.#closed) await this.#room.promise;
  }

  #saySkipped(): void {
    if (this.#skipped + this.#unread === 0) return;
    const skipped = { skipped: this.#skipped, unread: this.#unread };
    [this.#skipped, this.#unread] = [0, 0];
    this.#push({ kind: "skipped", skipped }, OVERHEAD_BYTES);
  }

  #push(entry: Entry, bytes: number): void {
    this.#entries.push(entry);
    this.#bytes += bytes;
    this.#changed.resolve();
  }

  #clear(): void {
    this.#entries = [];
    this.#bytes = 0;
    [this.#skipped, this.#unread] = [0, 0];
  }
}

/** Bytes of UTF-8 at most, and what the entry itself takes. */
function sizeOf(text: string): number {
  return Buffer.byteLength(text) + OVERHEAD_BYTES;
}

function entryBytes(entry: Entry): number {
  switch (entry.kind) {
    case "record":
      return sizeOf(entry.text) + entry.cursor.length;
    case "note":
      return sizeOf(entry.text);
    case "skipped":
      return OVERHEAD_BYTES;
    default:
      throw entry satisfies never;
  }
}

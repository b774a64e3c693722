// Which lines of which batches a plan holds already: two letters of the same record, in one insert, would store it twice.

import type { Batch } from "./message.ts";

/** The lines of batches that a plan holds, as ranges. */
export class Lines {
  readonly #ranges = new Map<string, { readonly from: number; readonly to: number }[]>();

  overlaps(batches: readonly Batch[]): boolean {
    return batches.some(({ envelope: { batch, firstLine, records } }) =>
      this.#ranges.get(batch)?.some(({ from, to }) => firstLine < to && from < firstLine + records),
    );
  }

  add(batches: readonly Batch[]): void {
    for (const { envelope } of batches) {
      const { batch, firstLine: from, records } = envelope;
      this.#ranges.set(batch, [...(this.#ranges.get(batch) ?? []), { from, to: from + records }]);
    }
  }
}

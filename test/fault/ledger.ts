// What a producer knows: each call, what was in it, and what it was answered.

export interface Call {
  readonly key: string | undefined;
  /** A unique marker for each record, in the order sent. */
  readonly markers: readonly string[];
  /** Whether an answer came that said "stored", "refused for good", or nothing that can be trusted. */
  outcome: "open" | "acked" | "refused" | "unknown";
  receipt?: Receipt;
  /** Every answer on the way: status and code, or the connection's fault. */
  readonly answers: string[];
}

export interface Receipt {
  readonly id: string;
  readonly stream: string;
  readonly seq: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly errors: readonly { line: number; code: string; message: string }[];
  readonly parts?: readonly { stream: string; seq: number }[];
  readonly duplicate?: true;
}

export class Ledger {
  readonly calls: Call[] = [];

  open(key: string | undefined, markers: readonly string[]): Call {
    const call: Call = { key, markers, outcome: "open", answers: [] };
    this.calls.push(call);
    return call;
  }

  of(outcome: Call["outcome"]): Call[] {
    return this.calls.filter((call) => call.outcome === outcome);
  }

  get ackedRecords(): number {
    return this.of("acked").reduce((sum, call) => sum + call.markers.length, 0);
  }
}

export interface StoredRow {
  readonly tenant: string;
  readonly batch: string;
  readonly line: number;
  readonly marker: string;
}

/**
 * Everything that contradicts I1-I4, one sentence each.
 * @param parked markers that belong into dead letters and so not into the table
 */
export function contradictions(
  ledger: Ledger,
  rows: readonly StoredRow[],
  tenant: string,
  parked: ReadonlySet<string> = new Set(),
): string[] {
  const faults: string[] = [];
  const seen = new Map<string, StoredRow[]>();
  for (const row of rows) {
    const list = seen.get(row.marker);
    if (list === undefined) seen.set(row.marker, [row]);
    else list.push(row);
    if (row.tenant !== tenant) faults.push(`I4: ${row.marker} belongs to ${row.tenant}`);
  }
  const places = new Set<string>();
  for (const row of rows) {
    const place = `${row.batch}/${row.line}`;
    if (places.has(place)) faults.push(`I1: ${place} is there twice`);
    places.add(place);
  }
  const sent = new Map(ledger.calls.flatMap((call) => call.markers.map((marker, line) => [marker, { call, line }] as const)));
  for (const [marker, copies] of seen) {
    const origin = sent.get(marker);
    if (copies.length > 1) faults.push(`I1: ${marker} is there ${copies.length} times`);
    if (origin === undefined) faults.push(`${marker} was never sent`);
    else if (origin.call.outcome === "refused") faults.push(`I2: ${marker} was refused for good but is there`);
    else if (copies[0]!.line !== origin.line) faults.push(`I3: ${marker} was record ${origin.line} and is line ${copies[0]!.line}`);
    if (parked.has(marker)) faults.push(`${marker} should be a dead letter only`);
  }
  for (const call of ledger.of("acked")) {
    const missing = call.markers.filter((marker) => !seen.has(marker) && !parked.has(marker));
    if (missing.length > 0)
      faults.push(`I1: batch ${call.receipt?.id} lacks ${missing.length} of ${call.markers.length}, first ${missing[0]}`);
    const batches = new Set(call.markers.flatMap((marker) => seen.get(marker)?.map((row) => row.batch) ?? []));
    if (batches.size > 1 || (batches.size === 1 && !batches.has(call.receipt!.id)))
      faults.push(`batch ${call.receipt!.id} is stored as ${[...batches]}`);
    if (call.receipt!.accepted !== call.markers.length)
      faults.push(`batch ${call.receipt!.id}: accepted ${call.receipt!.accepted} of ${call.markers.length}`);
  }
  for (const call of ledger.calls) {
    if (call.outcome === "open")
      faults.push(`I2: a call of ${call.markers.length} records was never answered: ${call.answers.slice(-3).join("; ")}`);
    if (call.outcome === "refused" && call.answers.length === 0) faults.push("I2: a refused call has no error");
  }
  return faults;
}

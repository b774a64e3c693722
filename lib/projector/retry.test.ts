// Retrying dead letters against a table in memory: exactly once whatever the letters hold and wherever a retry ends.

import { expect, it } from "vitest";
import { systemClock } from "../base/clock.ts";
import type { DecodedRecord } from "../event/decode.ts";
import { decodeBatch } from "../event/decode.ts";
import type { Enveloped } from "../event/envelope.ts";
import { envelopeHeaders } from "../event/envelope.ts";
import { newBatchId } from "../event/ids.ts";
import { frameOf } from "../event/testing.ts";
import type { Register } from "../streams/cas.ts";
import type { DeadLetter } from "../streams/dead-letters.ts";
import { originOf } from "./letter.ts";
import { judge, judgeWanted } from "./message.ts";
import type { RetryPorts, RetryResult, RetryState } from "./retry.ts";
import { retryLetters, tryRetry } from "./retry.ts";
import type { SitePort } from "./settle.ts";

const SECONDS = 1_800_000_000;
const signal = new AbortController().signal;

interface Given {
  readonly seq?: number;
  readonly batch?: string;
  /** Of the subject. */
  readonly tenant?: string;
  readonly lines?: string;
  readonly reason?: string;
  /** Lines that the block holds. */
  readonly held?: readonly number[];
  readonly payload?: Uint8Array;
  readonly omitted?: boolean;
  readonly generation?: number;
  readonly envelope?: Partial<Enveloped>;
  /** Whom the block names. */
  readonly owner?: { readonly tenant: string; readonly batch?: string };
}

/** A letter of a batch of ten records. */
async function letterOf(given: Given = {}): Promise<DeadLetter> {
  const { seq = 1, batch = newBatchId(1_000), tenant = "acme", lines = "all", reason = "record_refused", owner, omitted = false } = given;
  const held = given.held ?? (lines === "all" ? [...Array(10).keys()] : lines.split(",").map(Number));
  const time = (line: number): bigint => BigInt(SECONDS + line) * 1_000_000_000n;
  const counts = { part: 1, parts: 1, firstLine: 0, records: 10, accepted: 10, rejected: 0, bytes: 100 };
  const times = { minTimestamp: time(0), maxTimestamp: time(9) };
  const envelope: Enveloped = { schema: 1, tenant, batch, ...counts, ...times, source: "", bodyHash: "", ...given.envelope };
  const headers = new Map(envelopeHeaders(envelope, "x"));
  const payload = given.payload ?? (await frameOf(owner?.tenant ?? tenant, owner?.batch ?? batch, held, SECONDS));
  const origin = { stream: "LOGS_0", originSeq: 7, originStoredMs: 5, site: "main", generation: given.generation ?? 1, shard: 0 };
  const facts = { seq, storedMs: 9, tenant, reason, detail: "", lines, batch, bytes: payload.length, ...origin };
  const omittedBytes = omitted ? payload.length : undefined;
  return { ...facts, omittedBytes, payload, header: (name) => headers.get(name) ?? "", pairs: () => [...headers] };
}

/** A table, letters and a register in memory. */
function world(letters: readonly DeadLetter[], refuse: (record: DecodedRecord) => boolean = () => false) {
  const parked = new Map(letters.map((letter) => [letter.seq, letter]));
  const rows: string[] = [];
  const records: [string, readonly RetryResult[]][] = [];
  let state: { value: RetryState; revision: number } | undefined;
  const seat: Register<RetryState> = {
    read: async () => state,
    async write(value, revision) {
      if ((state?.revision ?? 0) !== revision) return undefined;
      state = { value, revision: revision + 1 };
      return state.revision;
    },
  };
  const site: SitePort = {
    async insert({ frames }) {
      const all = (await Promise.all(frames.map((frame) => decodeBatch(frame, 2 ** 20)))).flat();
      if (all.some(refuse)) return { kind: "data", code: 469, message: "a constraint refuses it" };
      for (const { line, body } of all) expect(body).toBe(`line ${line}`);
      rows.push(...all.map(({ tenant, batch, line }) => `${tenant} ${batch} ${line}`));
      return { kind: "stored" };
    },
    async presence({ batches }) {
      const found = new Map<string, number[]>();
      for (const [, batch, line] of rows.map((row) => row.split(" ")))
        if (batches.includes(batch!)) found.set(batch!, [...(found.get(batch!) ?? []), Number(line)]);
      return found;
    },
    kill: async () => undefined,
    quiet: async () => false,
  };
  let dies = "";
  const ports: RetryPorts = {
    generation: 1,
    register: seat,
    clock: systemClock,
    owner: "here",
    leaseMs: 300,
    letter: async (seq) => parked.get(seq),
    origin: async () => undefined,
    obstacle: async () => undefined,
    judge,
    site: () => site,
    tenants: { daysOf: () => 0 },
    events: { doubt: () => undefined, refused: () => undefined, waiting: () => undefined, stored: () => undefined },
    record: async (token, results) => void records.push([token, results]),
    remove: async (seq) => parked.delete(seq),
    failpoint(name) {
      if (name === dies) throw new Error(`died at ${name}`);
    },
  };
  return { parked, rows, records, ports, die: (step: string) => (dies = step), plan: () => state?.value.plan };
}

const BATCH = newBatchId(2_000);

it.each<[string, Given, string, number]>([
  ["a whole message", {}, "stored", 10],
  ["one line", { lines: "3" }, "stored", 1],
  ["lines that are no range", { lines: "0,3,4,5,9" }, "stored", 5],
  ["a cut message", { payload: Buffer.from("garbage") }, "refused frame_invalid", 0],
  ["a slice that cannot be opened", { lines: "3", payload: Buffer.from("garbage") }, "refused block_invalid", 0],
  ["a block that lacks lines", { held: [0, 1, 2], reason: "records_missing", lines: "3,4,5,6,7,8,9" }, "refused records_missing", 0],
  ["another tenant's block", { owner: { tenant: "other" } }, "refused records_missing", 0],
  ["a slice of another tenant's block", { lines: "3", owner: { tenant: "other" } }, "refused records_missing", 0],
  ["another batch's block", { owner: { tenant: "acme", batch: BATCH } }, "refused records_missing", 0],
  ["another time", { envelope: { minTimestamp: 1n, maxTimestamp: 2n } }, "refused records_missing", 0],
  ["another tenant in the header", { envelope: { tenant: "other" } }, "refused tenant_mismatch", 0],
  ["a slice with another tenant in the header", { lines: "3", envelope: { tenant: "other" } }, "refused tenant_mismatch", 0],
  ["a block with more lines than its envelope names", { held: [0, 1, 2], envelope: { records: 2 } }, "stored", 2],
  ["a payload that nobody has any more", { omitted: true }, "skipped origin_gone", 0],
  ["another generation", { generation: 2 }, "skipped other_generation", 0],
])("%s", async (_, given, outcome, stored) => {
  const { ports, rows, parked } = world([await letterOf(given)]);
  const [dry] = await tryRetry(ports, [1]);
  for (const _again of [1, 2]) {
    const results = await retryLetters(ports, [1], signal);
    if (parked.size === 0 && results[0]!.reason === "not_found") continue;
    expect(results.map((one) => `${one.outcome} ${one.reason}`.trim())).toEqual([outcome]);
    expect(`${dry!.outcome} ${dry!.reason}`.trim()).toBe(outcome === "stored" ? "ready" : outcome);
  }
  expect([rows.length, new Set(rows).size, parked.size]).toEqual([stored, stored, outcome === "stored" ? 0 : 1]);
});

it("a letter of which one record is still refused stays, and its other records are stored once", async () => {
  let mended = false;
  const { ports, rows, parked } = world([await letterOf()], ({ line }) => !mended && line === 4);
  for (const _ of [1, 2]) {
    const [one] = await retryLetters(ports, [1], signal);
    expect(one).toMatchObject({ outcome: "refused", reason: "record_refused", detail: "a constraint refuses it", records: 9 });
    expect([rows.length, parked.size]).toEqual([9, 1]);
  }
  mended = true;
  expect(await retryLetters(ports, [1], signal)).toMatchObject([{ outcome: "stored", records: 10 }]);
  expect([new Set(rows).size, rows.length, parked.size]).toEqual([10, 10, 0]);
});

it("two letters of the same record store it once", async () => {
  const letters = [await letterOf({ seq: 1, batch: BATCH }), await letterOf({ seq: 2, batch: BATCH, lines: "3,4" })];
  const { ports, rows, parked } = world([...letters, await letterOf({ seq: 3, batch: BATCH })]);
  expect((await retryLetters(ports, [1, 2, 3, 3], signal)).map(({ outcome }) => outcome)).toEqual(["stored", "stored", "stored"]);
  expect([rows.length, parked.size]).toEqual([10, 0]);
});

it("a payload that was too large to be parked comes from where the message is", async () => {
  const letter = await letterOf({ omitted: true });
  const { ports, rows, parked } = world([{ ...letter, payload: new Uint8Array() }]);
  const results = await retryLetters({ ...ports, origin: async () => originOf(letter, letter.payload) }, [1], signal);
  expect(results).toMatchObject([{ outcome: "stored", records: 10 }]);
  expect([rows.length, parked.size]).toEqual([10, 0]);
});

it("expired records are not stored again", async () => {
  const { ports, rows } = world([await letterOf(), await letterOf({ seq: 2, lines: "3,5" })]);
  const results = await retryLetters({ ...ports, judge: judgeWanted(() => false) }, [1, 2], signal);
  expect(results.map(({ reason }) => reason)).toEqual(["expired", "expired"]);
  expect(rows).toEqual([]);
});

for (const step of ["retry-planned", "settling", "reinserted", "retry-settled", "retry-recorded", "retry-removed"]) {
  it(`a retry that ends at ${step} is brought to its end by the next one, whatever that one is asked for`, async () => {
    const letters = await Promise.all([1, 2, 3].map((seq) => letterOf({ seq, lines: `${seq},${seq + 2}` })));
    const { ports, rows, parked, records, plan, die } = world(letters);
    die(step);
    const stop = new AbortController();
    // What a failpoint throws inside of settling is a fault that settling tries again; a process that dies does not.
    const dead = step === "settling" || step === "reinserted";
    const failing = dead ? { ...ports, failpoint: (name: string) => void (name === step && stop.abort(new Error("died"))) } : ports;
    await expect(retryLetters(failing, [1, 2, 3], stop.signal)).rejects.toThrow("died");
    expect(plan()).toMatchObject({ letters: [1, 2, 3] });
    die("");
    const results = await retryLetters({ ...ports, owner: "next" }, [], signal);
    expect(results.every(({ outcome }) => outcome === "stored")).toBe(true);
    expect([rows.length, new Set(rows).size, parked.size, plan()]).toEqual([6, 6, 0, null]);
    expect(new Set(records.map(([token]) => token)).size).toBe(1);
  });
}

it("a plan that was left is closed without its letters when someone else may store these by now", async () => {
  const { ports, rows, parked, plan, die } = world([await letterOf()]);
  die("retry-planned");
  await expect(retryLetters(ports, [1], signal)).rejects.toThrow("died");
  die("");
  const obstacle = async () => ({ reason: "not_settled", detail: "the generation was made anew" });
  expect(await retryLetters({ ...ports, owner: "next", obstacle }, [1], signal)).toMatchObject([
    { outcome: "skipped", reason: "not_settled" },
  ]);
  expect([rows.length, parked.size, plan()]).toEqual([0, 1, null]);
});

it("a retry that waits in vain for another one is refused; the other's owner is named", async () => {
  const { ports } = world([await letterOf()]);
  const busy = {
    ...ports,
    leaseMs: 100,
    register: { read: async () => ({ value: held(), revision: revision() }), write: async () => undefined },
  };
  await expect(retryLetters(busy, [1], signal)).rejects.toMatchObject({
    code: "dead_letters_busy",
    message: expect.stringContaining("them"),
  });
});

let revisions = 0;
const revision = (): number => ++revisions;
const held = (): RetryState => ({ plan: null, owner: "them", writes: 1 });

it("letters that someone else may still store are left alone", async () => {
  const { ports, rows, parked } = world([await letterOf()]);
  const results = await retryLetters({ ...ports, obstacle: async () => ({ reason: "not_settled", detail: "later" }) }, [1], signal);
  expect(results).toMatchObject([{ outcome: "skipped", reason: "not_settled" }]);
  expect([rows.length, parked.size]).toEqual([0, 1]);
});

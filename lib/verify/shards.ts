// What became of the messages of each shard, counted on the way.

import { DAY_NS } from "../base/clock.ts";
import type { Findings, ShardDamage } from "./findings.ts";
import { finding } from "./findings.ts";
import { dayOf } from "./groups.ts";
import type { Expired, Gone, ShardResult } from "./ports.ts";
import type { Entry, ShardSpan } from "./tally.ts";

const EVIDENCE_KEPT_MAX = 20;

interface Counts {
  messages: number;
  dead: number;
  partlyDead: number;
  passed: number;
  later: number;
  gone: number;
  unreadable: number;
  missing: number;
  duplicated: number;
  readonly evidence: string[];
}

/** Counts the messages of one pass over the log. */
export class ShardCounts {
  readonly #places: readonly ShardSpan[];
  readonly #counts = new Map<number, Counts>();
  readonly #findings: Findings;
  readonly #expired: Expired | undefined;

  constructor(places: readonly ShardSpan[], findings: Findings, expired: Expired | undefined) {
    this.#places = places;
    this.#findings = findings;
    this.#expired = expired;
    for (const { shard } of places) this.#counts.set(shard, { ...NOTHING, evidence: [] });
  }

  readonly events = {
    message: (place: ShardSpan): void => {
      this.#of(place).messages++;
    },
    later: (place: ShardSpan): void => {
      this.#of(place).later++;
    },
    parkedUnjudged: (place: ShardSpan): void => {
      this.#of(place).dead++;
    },
    unwanted: (place: ShardSpan): void => {
      this.#of(place).passed++;
    },
    entry: ({ place, parked, envelope }: Entry): void => {
      const counts = this.#of(place);
      if (parked === "all") counts.dead++;
      else if (this.#expired?.(envelope.tenant, BigInt(dayOf(envelope.maxTimestamp)) * DAY_NS)) counts.passed++;
      else if (parked !== undefined) counts.partlyDead++;
    },
    unreadable: ({ shard }: ShardSpan, seq: number, tenant: string, batch: string, why: string): void => {
      this.#of({ shard }).unreadable++;
      this.#findings.add(finding("unreadable", { tenant, batch, shard, seq }, [], `neither projected nor parked: ${why}`));
    },
    gone: ({ shard }: ShardSpan, { from, to, evidence }: Gone): void => {
      const counts = this.#of({ shard });
      counts.gone += to - from + 1;
      if (counts.evidence.length < EVIDENCE_KEPT_MAX) counts.evidence.push(`${from}-${to}: ${evidence || "nothing says why"}`);
      if (evidence === "")
        this.#findings.add(
          finding("unexplained", { tenant: "", batch: "", shard, seq: from }, [], `${from} to ${to} are gone and nothing says why`),
        );
    },
  };

  /** Counts damaged messages, each once. */
  damaged(damage: readonly ShardDamage[]): void {
    for (const { shard, missing, duplicated } of damage) {
      if (missing) this.#of({ shard }).missing++;
      else if (duplicated) this.#of({ shard }).duplicated++;
    }
  }

  results(): ShardResult[] {
    return [...this.#counts].map(([shard, { unreadable, ...counts }]) => {
      const { messages, dead, partlyDead, passed, later, missing, duplicated } = counts;
      const projected = messages - dead - partlyDead - passed - later - unreadable - missing - duplicated;
      return { shard, spans: this.#places.filter((place) => place.shard === shard).map(spanOf), ...counts, projected };
    });
  }

  #of({ shard }: { readonly shard: number }): Counts {
    return this.#counts.get(shard)!;
  }
}

const spanOf = ({ created, from, to }: ShardSpan) => ({ created, from, to });

const NOTHING = { messages: 0, dead: 0, partlyDead: 0, passed: 0, later: 0, gone: 0, unreadable: 0, missing: 0, duplicated: 0 };

// Warnings that a quota is nearly, or wholly, used up: events that notifications can use.
//
// Promises: one event for each quota, window and threshold, however many processes look and however often they are killed (the
// append is refused when it is there); within a second or so of the usage; also when a quota is lowered below what is used. What
// was said is not taken back when a quota is raised.

import type { Clock } from "../base/clock.ts";
import { newBatchId } from "../event/ids.ts";
import type { Meter } from "./meter.ts";
import type { Held, QuotaDecider, QuotaName } from "./quota.ts";
import type { Calendars } from "./windows.ts";

export const PERCENTS = [80, 100] as const;

/** An event of CONTROL. */
export interface QuotaWarning {
  readonly version: 1;
  /** A ULID. */
  readonly id: string;
  /** RFC 3339. */
  readonly time: string;
  readonly tenant: string;
  readonly what: "quota_warning";
  readonly who: "relog";
  /** The process that saw it. */
  readonly where: string;
  readonly percent: (typeof PERCENTS)[number];
  readonly quota: QuotaName;
  readonly limit: number;
  readonly used: number;
  /** RFC 3339 in the tenant's zone. */
  readonly window: { readonly from: string; readonly to: string };
}

export interface WarningPorts {
  /** Appends a warning unless there is one for its quota, window and percentage. Returns false when there is. */
  append(warning: QuotaWarning, fromMs: number): Promise<boolean>;
  /** Told of each warning that was appended. */
  appended(warning: QuotaWarning): void;
  /** This process and its machine. */
  readonly where: string;
}

export class Warnings {
  readonly #meter: Meter;
  readonly #decider: QuotaDecider;
  readonly #calendars: Calendars;
  readonly #ports: WarningPorts;
  readonly #clock: Pick<Clock, "now">;
  /** What is known to be in the stream, with the end of its window. */
  readonly #said = new Map<string, number>();

  constructor(meter: Meter, decider: QuotaDecider, calendars: Calendars, ports: WarningPorts, clock: Pick<Clock, "now">) {
    this.#meter = meter;
    this.#decider = decider;
    this.#calendars = calendars;
    this.#ports = ports;
    this.#clock = clock;
  }

  /** Looks at every tenant with quotas once. @throws what `append` throws; the next look tries again */
  async look(): Promise<void> {
    const nowMs = this.#clock.now();
    for (const [key, toMs] of this.#said) if (toMs <= nowMs) this.#said.delete(key);
    for (const [tenant, held] of this.#decider.held) await this.#lookAt(tenant, held, nowMs);
  }

  async #lookAt(tenant: string, { quotas, zone }: Held, nowMs: number): Promise<void> {
    for (const { name, measure, period, limit } of quotas) {
      const used = this.#meter.used(tenant, period, measure, nowMs);
      if (used * 100 < limit * PERCENTS[0]) continue;
      const { fromMs, toMs } = this.#meter.windows(tenant, nowMs)[period];
      const calendar = this.#calendars.of(zone);
      const window = { from: calendar.format(fromMs), to: calendar.format(toMs) };
      for (const percent of PERCENTS) {
        const key = `${tenant}.${name}.${fromMs}.${percent}`;
        if (used * 100 < limit * percent || this.#said.has(key)) continue;
        const head = { version: 1, id: newBatchId(nowMs), time: new Date(nowMs).toISOString(), tenant, what: "quota_warning" } as const;
        const warning = { ...head, who: "relog", where: this.#ports.where, percent, quota: name, limit, used, window } as const;
        if (await this.#ports.append(warning, fromMs)) this.#ports.appended(warning);
        this.#said.set(key, toMs);
      }
    }
  }
}

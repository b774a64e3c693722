// The register of generations seen from a process: whether it was lost, and what a projector does with it.
//
// Promises: a projector that finds no register never begins the first generation beside others that hold rows: it waits,
// says so, and stays ready; it notes the retention of its settings in the register once when it starts, and again when a new register has none.

import { Hono } from "hono";
import { messageOf, RelogError } from "../../lib/base/errors.ts";
import type { Health } from "../../lib/base/health.ts";
import { Bell } from "../../lib/base/loop.ts";
import type { Logger } from "../../lib/base/telemetry.ts";
import type { Retention } from "../../lib/event/retention.ts";
import { retentionWords } from "../../lib/event/retention.ts";
import type { Followed } from "../../lib/projector/fleet.ts";
import type { ClickHouse } from "../../lib/store/client.ts";
import { generationsHeld, lostSentence } from "../../lib/store/live.ts";
import type { Generations, GenerationsRegister } from "../../lib/streams/generations.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import type { Projection } from "./projection.ts";

/** The register as it was read; a sentence in `lost` when it is absent though there are generations. @throws NatsError, RelogError */
export async function readPointer(
  generations: GenerationsRegister,
  clickhouse: ClickHouse,
  site: string,
): Promise<{ readonly value: Generations; readonly lost: string | undefined }> {
  const { value, revision } = await generations.read();
  return { value, lost: revision === 0 ? lostSentence(await generationsHeld(clickhouse, site)) : undefined };
}

const LOOK_MS = 2_000;

export interface PointerPorts {
  readonly generations: GenerationsRegister;
  readonly retention: Retention;
  readonly health: Health;
  readonly log: Logger;
  /** A sentence when the register is lost. @throws RelogError when ClickHouse does not say */
  lost(): Promise<string | undefined>;
  follow(now: Followed): void;
}

/** What a projector does when the register changes: feed it with changed(), and let run() run. */
export class Pointer {
  readonly #ports: PointerPorts;
  readonly #own: string;
  #latest: { readonly now: Generations; readonly revision: number } | undefined;
  readonly #wake = new Bell();
  #said: string | undefined;
  #noted = false;

  constructor(ports: PointerPorts) {
    this.#ports = ports;
    this.#own = retentionWords(ports.retention);
  }

  changed(now: Generations, revision: number): void {
    this.#latest = { now, revision };
    if (revision > 0) this.#follow(now);
    this.#wake.ring();
  }

  /** Looks after what takes time, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#look().then(
        () => this.#ports.health.warn("pointer", undefined),
        (error: unknown) => this.#ports.health.warn("pointer", messageOf(error)),
      );
      await this.#wake.wait(LOOK_MS, signal);
    }
  }

  #follow(now: Generations): void {
    this.#tell(undefined);
    const { retention } = now;
    const differs = this.#noted && retention !== "" && retention !== this.#own;
    const advice = `this projector keeps "${this.#own}", the one that started last "${retention}" (days, then tenant:days): start all with the same RELOG_RETENTION_*`;
    this.#ports.health.warn("retention", differs ? advice : undefined);
    this.#ports.follow(now);
  }

  async #look(): Promise<void> {
    const latest = this.#latest;
    if (latest === undefined) return;
    if (latest.revision === 0) {
      const lost = await this.#ports.lost();
      if (this.#latest !== latest) return;
      if (lost !== undefined) {
        this.#tell(lost);
        this.#ports.follow({ followed: [], hold: null });
        this.#ports.health.notReady("clickhouse", undefined);
        return;
      }
      this.#follow(latest.now);
    }
    if (!this.#noted || latest.now.retention === "") await this.#note(latest.revision);
  }

  /** Writes the policy; whoever started last is right, and a register that was restored has none. */
  async #note(revision: number): Promise<void> {
    let [before, away]: [string | undefined, boolean] = [undefined, false];
    await this.#ports.generations.change((now) => {
      before = undefined;
      // A register that went away meanwhile is not written anew before it is known whether it was lost.
      away = revision > 0 && now.writes === 0;
      if (away) return undefined;
      if (now.retention === this.#own || (this.#noted && now.retention !== "")) return undefined;
      before = now.retention;
      return { retention: this.#own };
    });
    if (away) return;
    this.#noted = true;
    if (before !== undefined) this.#ports.log.info({ before, now: this.#own }, "the retention of tenants whose accounts say none");
  }

  #tell(lost: string | undefined): void {
    const { health, log } = this.#ports;
    health.warn("register", lost);
    if (lost !== undefined && this.#said === undefined) log.error(lost);
    if (lost === undefined && this.#said !== undefined) log.info("the register of generations is there again");
    this.#said = lost;
  }
}

/** Lets operators look, but change nothing, while the register of generations is lost. */
export function guardRegister({ nc, clickhouse, settings: { site } }: Projection): Hono {
  const guard = new Hono();
  guard.use(async (c, next) => {
    const reads = c.req.method === "GET" || c.req.method === "HEAD";
    const lost = reads ? undefined : (await readPointer(generationsRegister(nc, site), clickhouse, site)).lost;
    if (lost !== undefined) throw new RelogError("bad_request", lost);
    await next();
  });
  return guard;
}

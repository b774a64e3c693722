// Whether a process is alive, and whether it may get traffic.
//
// Promises: `/healthz` answers 200 while the process can answer at all; `/readyz` answers 503 with every reason there is;
// `/metrics` is Prometheus text. A reason is set and cleared by whoever knows it; draining is one of them.

import { Hono } from "hono";
import type { Registry } from "prom-client";

export class Health {
  readonly #reasons = new Map<string, string>();
  /** Notes that an operator should see but that do not stop traffic. */
  readonly #warnings = new Map<string, string>();

  /** Says why this process must not get traffic; undefined clears it. */
  notReady(subject: string, reason: string | undefined): void {
    if (reason === undefined) this.#reasons.delete(subject);
    else this.#reasons.set(subject, reason);
  }

  /** Says what is wrong though traffic may go on; undefined clears it. */
  warn(subject: string, reason: string | undefined): void {
    if (reason === undefined) this.#warnings.delete(subject);
    else this.#warnings.set(subject, reason);
  }

  get ready(): boolean {
    return this.#reasons.size === 0;
  }

  report(): { ready: boolean; reasons: Record<string, string>; warnings: Record<string, string> } {
    return { ready: this.ready, reasons: Object.fromEntries(this.#reasons), warnings: Object.fromEntries(this.#warnings) };
  }
}

/** The three operating endpoints, the same on every process. */
export function healthRoutes(health: Health, registry: Registry): Hono {
  const app = new Hono();
  app.get("/healthz", (c) => c.json({ alive: true }));
  app.get("/readyz", (c) => c.json(health.report(), health.ready ? 200 : 503));
  app.get("/metrics", async (c) => c.body(await registry.metrics(), 200, { "content-type": registry.contentType }));
  return app;
}

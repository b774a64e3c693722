// Logs and metrics of one process.
//
// Promises: logs are one JSON object a line on stdout (field names are those the ingest path knows by default), without a
// raw character that a terminal would obey, whatever was said to us; metrics are Prometheus text; there is one registry a process and no global.

import type { Logger } from "pino";
import { pino } from "pino";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { harmless } from "./harmless.ts";

export type { Logger } from "pino";

export interface Telemetry {
  readonly log: Logger;
  readonly registry: Registry;
  /** A counter with these label names; asking twice for a name gives the same one. */
  counter(name: string, help: string, labels?: readonly string[]): Counter;
  /** A gauge; `read` is called at each scrape when given. */
  gauge(name: string, help: string, labels?: readonly string[], read?: (gauge: Gauge) => void | Promise<void>): Gauge;
  /** A histogram with bucket bounds in the unit the name ends with. */
  histogram(name: string, help: string, buckets: readonly number[], labels?: readonly string[]): Histogram;
}

/** Seconds, from a fast append to a long insert. */
export const LATENCY_BUCKETS_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60] as const;

/** @param component name of the process ("gateway", ...), in each log line and metric */
export function createTelemetry(component: string, level = "info", defaultMetrics = true): Telemetry {
  const log = pino({
    level,
    base: { service: "relog", component },
    messageKey: "message",
    timestamp: () => `,"timestamp":"${new Date().toISOString()}"`,
    formatters: { level: (label) => ({ level: label }) },
    hooks: { streamWrite: harmless },
  });
  const registry = new Registry();
  registry.setDefaultLabels({ component });
  if (defaultMetrics) collectDefaultMetrics({ register: registry });
  function once<M>(name: string, make: () => M): M {
    return (registry.getSingleMetric(name) as M | undefined) ?? make();
  }
  const registers = [registry];
  return {
    log,
    registry,
    counter: (name, help, labels = []) => once(name, () => new Counter({ name, help, labelNames: [...labels], registers })),
    gauge: (name, help, labels = [], read) =>
      once(name, () => {
        const collect = read
          ? async function (this: Gauge) {
              await read(this);
            }
          : undefined;
        return new Gauge({ name, help, labelNames: [...labels], registers, ...(collect ? { collect } : {}) });
      }),
    histogram: (name, help, buckets, labels = []) =>
      once(name, () => new Histogram({ name, help, buckets: [...buckets], labelNames: [...labels], registers })),
  };
}

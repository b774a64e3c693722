// What one process takes on at a time.

import type { Values } from "../base/config.ts";
import { bytes, integer } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import { Bound } from "../base/loop.ts";
import type { Telemetry } from "../base/telemetry.ts";

export const admitSettings = {
  requestsInFlightMax: integer(
    "RELOG_REQUESTS_IN_FLIGHT_MAX",
    "1024",
    [1, 1_000_000],
    "requests",
    "calls being decoded and appended at once",
  ),
  bytesInFlightMax: bytes("RELOG_BYTES_IN_FLIGHT_MAX", "96MiB", "bytes of bodies held at once; with it a gateway stays below 300 MB"),
};

export interface Admission {
  /** Bytes of bodies held now. */
  readonly bytes: Bound;
  /** Runs `work` when there is room. @throws RelogError too_many_requests */
  admit<T>(work: () => Promise<T>): Promise<T>;
}

export function admission(settings: Values<typeof admitSettings>, telemetry: Telemetry): Admission {
  const requests = new Bound(settings.requestsInFlightMax);
  const inFlight = new Bound(settings.bytesInFlightMax);
  telemetry.gauge("relog_ingest_requests_in_flight", "calls being decoded and appended", [], (gauge) => gauge.set(requests.used));
  telemetry.gauge("relog_ingest_bytes_in_flight", "bytes of bodies held", [], (gauge) => gauge.set(inFlight.used));
  return {
    bytes: inFlight,
    async admit(work) {
      if (!requests.tryTake(1)) {
        const text = `${requests.used} requests are in flight; RELOG_REQUESTS_IN_FLIGHT_MAX allows ${requests.max}`;
        throw new RelogError("too_many_requests", text, { retryAfterS: 1 });
      }
      try {
        return await work();
      } finally {
        requests.give(1);
      }
    },
  };
}

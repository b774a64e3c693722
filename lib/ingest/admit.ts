// What one process takes on at a time.

import type { Values } from "../base/config.ts";
import { bytes, integer } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import type { Taker } from "../base/share.ts";
import { SharedBound, shareSettings } from "../base/share.ts";
import type { Telemetry } from "../base/telemetry.ts";

export const admitSettings = {
  ...shareSettings,
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
  readonly held: number;
  /** Bytes of bodies that a tenant holds. */
  bytes(tenant: string): Taker;
  /** Runs `work` when there is room. @throws RelogError too_many_requests */
  admit<T>(tenant: string, work: () => Promise<T>): Promise<T>;
}

/** @param alone whether there is one tenant only: then it has all the room */
export function admission(settings: Values<typeof admitSettings>, telemetry: Telemetry, alone?: () => boolean): Admission {
  const { requestsInFlightMax, bytesInFlightMax, tenantSharePercent } = settings;
  const requests = new SharedBound(
    requestsInFlightMax,
    tenantSharePercent,
    "requests are in flight",
    "RELOG_REQUESTS_IN_FLIGHT_MAX",
    alone,
  );
  const inFlight = new SharedBound(
    bytesInFlightMax,
    tenantSharePercent,
    "bytes of bodies are in flight",
    "RELOG_BYTES_IN_FLIGHT_MAX",
    alone,
  );
  telemetry.gauge("relog_ingest_requests_in_flight", "calls being decoded and appended", [], (gauge) => gauge.set(requests.used));
  telemetry.gauge("relog_ingest_bytes_in_flight", "bytes of bodies held", [], (gauge) => gauge.set(inFlight.used));
  return {
    get held() {
      return inFlight.used;
    },
    bytes: (tenant) => inFlight.of(tenant),
    async admit(tenant, work) {
      const room = requests.of(tenant);
      const why = room.take(1);
      if (why !== undefined) throw new RelogError("too_many_requests", why, { retryAfterS: 1 });
      try {
        return await work();
      } finally {
        room.give(1);
      }
    },
  };
}

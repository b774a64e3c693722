// Places for running queries: so many in this process, of them a part for each tenant, and what tenants' own limits say.

import { RelogError } from "../base/errors.ts";
import type { Principal } from "../base/principal.ts";
import { SharedBound } from "../base/share.ts";
import type { QueryLimits, QueryTenancy } from "./limits.ts";

const BUSY_RETRY_S = 1;

export interface Places {
  readonly used: number;
  /** A place until it is disposed, once. @throws RelogError too_many_queries */
  take(principal: Principal): Disposable;
}

export function places({ queriesMax, tenantSharePercent = 100 }: QueryLimits, tenancy: QueryTenancy): Places {
  const running = new SharedBound(queriesMax, tenantSharePercent, "queries are running", "RELOG_QUERIES_MAX", tenancy.alone);
  return {
    get used() {
      return running.used;
    },
    take(principal) {
      const slot = tenancy.slot(principal);
      const room = running.of(principal.tenant);
      const why = room.take(1);
      if (why !== undefined) {
        slot[Symbol.dispose]();
        throw new RelogError("too_many_queries", why, { retryAfterS: BUSY_RETRY_S });
      }
      return {
        [Symbol.dispose]() {
          room.give(1);
          slot[Symbol.dispose]();
        },
      };
    },
  };
}

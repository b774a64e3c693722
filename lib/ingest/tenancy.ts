// What a gateway knows of a call's tenant besides its name: limits, quotas, attributes.

import type { LimitsPort } from "./limits.ts";
import { NO_LIMITS } from "./limits.ts";
import type { OverQuota } from "./over-quota.ts";
import { WITHIN } from "./over-quota.ts";
import type { AttributesPort } from "./overflow.ts";
import { ANY_ATTRIBUTES } from "./overflow.ts";
import type { QuotaPort } from "./quota.ts";
import { NO_QUOTAS } from "./quota.ts";

export interface Tenancy {
  readonly limits: LimitsPort;
  readonly quotas: QuotaPort;
  readonly over: OverQuota;
  readonly attributes: AttributesPort;
}

/** For processes and tests without accounts. */
export const UNBOUNDED: Tenancy = { limits: NO_LIMITS, quotas: NO_QUOTAS, over: WITHIN, attributes: () => ANY_ATTRIBUTES };

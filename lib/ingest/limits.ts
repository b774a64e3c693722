// What a tenant's limits say of a call, as the gateway asks.

import type { Principal } from "../base/principal.ts";

/** The limits of one call, in the order in which it meets them. */
export interface CallLimits {
  /** The call begins: nothing of its body was read. @throws RelogError rate_limited */
  enter(): void;
  /** Its body is there, decompressed. @throws RelogError rate_limited when others used up meanwhile what it would need */
  body(bytes: number): void;
  /** So many records were in it. */
  records(count: number): void;
  /** Fields of an answer that say what is left; none without limits. */
  fields(): readonly (readonly [name: string, value: string])[];
}

export type LimitsPort = (principal: Pick<Principal, "tenant" | "keyId">) => CallLimits;

const UNLIMITED: CallLimits = { enter: () => undefined, body: () => undefined, records: () => undefined, fields: () => [] };
/** For processes and tests without accounts. */
export const NO_LIMITS: LimitsPort = () => UNLIMITED;

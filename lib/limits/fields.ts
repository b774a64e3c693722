// The RateLimit fields of answers: draft-ietf-httpapi-ratelimit-headers-09, lists of HTTP structured fields (RFC 9651).
//
// `RateLimit-Policy: "requests";q=100;w=10` says what there is, `RateLimit: "requests";r=57;t=3` what is left of it: `r` whole
// tokens, and `t` the seconds until there is one again (when r is 0) or until all of them are there.

/** The largest integer of a structured field. */
const INTEGER_MAX = 999_999_999_999_999;

export interface Policy {
  /** Lower-case letters and hyphens. */
  readonly name: string;
  readonly quota: number;
  /** The unit, where it is not requests. */
  readonly unit?: string;
  readonly windowS?: number;
}

const integer = (value: number): string => String(Math.min(INTEGER_MAX, Math.max(0, Math.floor(value))));

/** One member of `RateLimit-Policy`. */
export function policyMember({ name, quota, unit, windowS }: Policy): string {
  const of = unit === undefined ? "" : `;qu="${unit}"`;
  return `"${name}";q=${integer(quota)}${of}${windowS === undefined ? "" : `;w=${integer(windowS)}`}`;
}

/** One member of `RateLimit`. @param seconds of `t`, rounded up */
export function remainderMember(name: string, left: number, seconds?: number): string {
  return `"${name}";r=${integer(left)}${seconds === undefined ? "" : `;t=${integer(Math.ceil(seconds))}`}`;
}

export const POLICY_FIELD = "RateLimit-Policy";
export const REMAINDER_FIELD = "RateLimit";

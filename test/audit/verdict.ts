// What `npm audit --json` has said.
//
// Promises: findings are never taken for anything else, nor is an answer that is not understood; that nobody could be asked
// is told apart from that.

import { z } from "zod";

const LEVELS = ["high", "critical"] as const;

const report = z.object({
  auditReportVersion: z.number(),
  vulnerabilities: z.record(z.string(), z.object({ severity: z.string() })),
  metadata: z.object({ vulnerabilities: z.object({ high: z.int(), critical: z.int() }) }),
});
/** Of a request that failed: with a status when somebody answered. */
const unanswered = z.object({ message: z.string(), statusCode: z.int().optional(), error: z.object({ code: z.undefined().optional() }) });
/** Of npm 6 to 8, when a registry has no such endpoint. */
const unsupported = z.object({ error: z.object({ code: z.literal("ENOAUDIT"), summary: z.string() }) });
const NOT_OFFERED: ReadonlySet<number> = new Set([404, 405, 410, 501]);

export type Verdict =
  | { readonly kind: "clean" }
  | { readonly kind: "found"; readonly packages: readonly string[] }
  /** The registry does not offer it, or cannot be reached. */
  | { readonly kind: "unasked"; readonly why: string }
  | { readonly kind: "failed"; readonly why: string };

/** @param output of `npm audit --audit-level=high --json` @param exit its exit code; null when it was ended */
export function verdictOf(output: string, exit: number | null): Verdict {
  let value: unknown;
  try {
    value = JSON.parse(output);
  } catch {
    return { kind: "failed", why: `npm audit ended with ${exit} and said no JSON: ${output.slice(0, 200)}` };
  }
  const read = report.safeParse(value);
  if (read.success) return judged(read.data, exit);
  const none = unsupported.safeParse(value);
  if (none.success) return { kind: "unasked", why: none.data.error.summary };
  const { data } = unanswered.safeParse(value);
  if (data !== undefined && exit !== 0 && (data.statusCode === undefined || NOT_OFFERED.has(data.statusCode)))
    return { kind: "unasked", why: data.message };
  return { kind: "failed", why: `npm audit ended with ${exit}: ${output.slice(0, 500)}` };
}

function judged({ vulnerabilities, metadata }: z.infer<typeof report>, exit: number | null): Verdict {
  const packages = Object.entries(vulnerabilities)
    .filter(([, { severity }]) => LEVELS.some((level) => level === severity))
    .map(([name, { severity }]) => `${name} (${severity})`);
  const { high, critical } = metadata.vulnerabilities;
  if (packages.length > 0 || high + critical > 0) return { kind: "found", packages };
  return exit === 0 ? { kind: "clean" } : { kind: "failed", why: `npm audit ended with ${exit} and lists nothing` };
}

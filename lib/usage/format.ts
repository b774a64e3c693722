// A verification of usage as people read it.

import type { UsageVerification } from "./verify.ts";

const SHOWN_MAX = 100;

const minute = (ms: number): string => `${new Date(ms).toISOString().slice(0, 16)}Z`;

/** Lines, each ended. */
export function formatUsageVerification(result: UsageVerification): string {
  const { totals, leftOut, differences, differencesTotal, unreadable, closedUntilMs } = result;
  const lines = [
    `usage from ${minute(result.sinceMs)} to ${minute(result.untilMs)}, closed until ${minute(closedUntilMs)}`,
    `recomputed from ${totals.messages} messages: ${totals.records} records, ${totals.bytes} bytes, ${totals.groups} figures compared`,
    ...leftOut.map(({ fromMs, toMs }) => `left out: ${minute(fromMs)} to ${minute(toMs)}: the log does not hold all of it any more`),
    ...differences.slice(0, SHOWN_MAX).map(({ where, tenant, quarterMs, service, log, tooOld, table }) => {
      const old = tooOld.records === 0 ? "" : ` (and ${tooOld.records} that were too old when they came)`;
      const at = `${minute(quarterMs)} tenant ${tenant} service ${JSON.stringify(service)}`;
      if (where === "late") return `late: ${at}: a record that was stored more than an hour after it was observed`;
      return `${where}: ${at}: ${table.records} records, ${table.bytes} bytes; the log says ${log.records}, ${log.bytes}${old}`;
    }),
  ];
  if (differencesTotal > SHOWN_MAX) lines.push(`and ${differencesTotal - SHOWN_MAX} more`);
  if (unreadable > 0) lines.push(`${unreadable} messages cannot be read and are not parked: \`relog verify\` names them`);
  lines.push(result.ok ? "EQUAL" : `DIFFERENT: ${differencesTotal} of ${totals.groups} figures`);
  return `${lines.join("\n")}\n`;
}

// Severity: from the words that loggers use to OpenTelemetry's numbers, and the few names that people search by.
// Sources: OpenTelemetry Logs Data Model (SeverityNumber and appendix B for syslog), pino's and bunyan's numeric levels.

/** Names of the six ranges of four severity numbers each; index 0 is "unknown". */
export const LEVELS = ["unknown", "trace", "debug", "info", "warn", "error", "fatal"] as const;
export type Level = (typeof LEVELS)[number];

const WORDS: Record<string, number> = {
  trace: 1,
  verbose: 1,
  finest: 1,
  finer: 2,
  silly: 1,
  t: 1,
  v: 1,
  debug: 5,
  dbg: 5,
  fine: 5,
  d: 5,
  info: 9,
  information: 9,
  informational: 9,
  i: 9,
  notice: 10,
  log: 9,
  ok: 9,
  success: 9,
  config: 9,
  warn: 13,
  warning: 13,
  wrn: 13,
  w: 13,
  error: 17,
  err: 17,
  e: 17,
  severe: 17,
  failure: 17,
  critical: 18,
  crit: 18,
  c: 18,
  alert: 19,
  fatal: 21,
  f: 21,
  panic: 21,
  emerg: 21,
  emergency: 21,
  "10": 1,
  "20": 5,
  "30": 9,
  "40": 13,
  "50": 17,
  "60": 21,
};
const KNOWN = new Map<string, number>(Object.entries(WORDS));
const REMEMBERED_MAX = 4096;
const REMEMBERED_CHARS_MAX = 32;
const remembered = new Map<string, number>();

/** Severity number (1-24) of a level's word or of pino's number as text; 0 when it is not known. Letter case does not matter. */
export function severityNumberOf(word: string): number {
  const known = remembered.get(word);
  if (known !== undefined) return known;
  const lower = word.trim().toLowerCase();
  const numbered = /^(trace|debug|info|warn|error|fatal)([234])$/.exec(lower);
  const number = numbered ? KNOWN.get(numbered[1]!)! + Number(numbered[2]) - 1 : (KNOWN.get(lower) ?? 0);
  if (remembered.size < REMEMBERED_MAX && word.length <= REMEMBERED_CHARS_MAX)
    remembered.set(Buffer.from(word, "utf8").toString("utf8"), number);
  return number;
}

/** The name of a severity number's range. */
export function levelOf(severityNumber: number): Level {
  return LEVELS[Math.ceil(severityNumber / 4)] ?? "unknown";
}

// Times as producers write them, to the nanosecond.

import type { ByteString } from "./text.ts";

/** Where a parsed time goes. */
export interface TimeTarget {
  seconds: number;
  nanoseconds: number;
}

const DIGITS = /^-?\d+(?:\.\d+)?(?:[eE]\+?\d+)?$/;
const RFC3339 = /^(\d{4})-(\d\d)-(\d\d)(?:[Tt _](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?) ?(?:([Zz]|UTC|GMT)|([+-])(\d\d):?(\d\d)?)?$/;
/** The last second whose nanoseconds fit 63 bits, in the year 2262. */
const SECONDS_MAX = 9_223_372_035;

/**
 * Parses RFC 3339 (also with a blank for the T, a comma before the fraction, and no zone, which means UTC), or seconds,
 * milliseconds, microseconds or nanoseconds since the epoch, told apart by magnitude (below 1e11, 1e14, 1e17, above).
 * @returns undefined when `target` was set, else the reason
 */
export function parseTime(text: ByteString, target: TimeTarget): string | undefined {
  if (fastRfc3339(text, target)) return undefined;
  const trimmed = text.trim();
  if (DIGITS.test(trimmed)) return parseEpoch(trimmed, target);
  const match = RFC3339.exec(trimmed);
  if (match === null) return `"${text.slice(0, 64)}" is neither RFC 3339 nor seconds, ms, us or ns since the epoch`;
  const [year, month, day, hour, minute, second] = [1, 2, 3, 4, 5, 6].map((i) => Number(match[i] ?? 0)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (!validCivil(year, month, day, hour, minute, second)) return `"${text.slice(0, 64)}" is no date and time that exists`;
  if (Number(match[10] ?? 0) > 23 || Number(match[11] ?? 0) > 59) return `"${text.slice(0, 64)}" has a zone that does not exist`;
  const offset = match[9] === undefined ? 0 : (match[9] === "-" ? -1 : 1) * (Number(match[10]) * 3600 + Number(match[11] ?? 0) * 60);
  const seconds = epochDays(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
  return assign(target, seconds, Number((match[7] ?? "").slice(0, 9).padEnd(9, "0")));
}

function assign(target: TimeTarget, seconds: number, nanoseconds: number): string | undefined {
  if (seconds < 0) return "times before 1970-01-01 cannot be stored";
  if (seconds > SECONDS_MAX) return "times after the year 2262 cannot be stored";
  target.seconds = seconds;
  target.nanoseconds = nanoseconds;
  return undefined;
}

function parseEpoch(text: string, target: TimeTarget): string | undefined {
  if (/[eE]/.test(text)) {
    const value = Number(text);
    if (!Number.isFinite(value) || Math.abs(value) > 1e19) return `"${text.slice(0, 64)}" is no time`;
    return parseEpoch(BigInt(Math.round(value)).toString(), target);
  }
  if (text.startsWith("-")) return "times before 1970-01-01 cannot be stored";
  const [whole, fraction = ""] = text.split(".") as [string, string?];
  const digits = whole.replace(/^0+(?=\d)/, "");
  if (digits.length > 19) return `"${text.slice(0, 64)}" is no time`;
  // How many of the last digits are fractions of a second.
  const scale = digits.length <= 11 ? 0 : digits.length <= 14 ? 3 : digits.length <= 17 ? 6 : 9;
  const seconds = Number(digits.slice(0, digits.length - scale));
  const rest = (digits.slice(digits.length - scale) + fraction).slice(0, 9).padEnd(9, "0");
  return assign(target, seconds, scale === 0 ? Number(fraction.slice(0, 9).padEnd(9, "0")) : Number(rest));
}

/** `YYYY-MM-DDTHH:MM:SS[.fraction]Z`, what nearly every producer sends, without a regular expression. */
function fastRfc3339(text: ByteString, target: TimeTarget): boolean {
  const length = text.length;
  if (length < 20 || length > 30 || text.charCodeAt(length - 1) !== 0x5a || text.charCodeAt(10) !== 0x54) return false;
  const year = digits(text, 0, 4);
  const month = digits(text, 5, 2);
  const day = digits(text, 8, 2);
  const hour = digits(text, 11, 2);
  const minute = digits(text, 14, 2);
  const second = digits(text, 17, 2);
  let nanoseconds = 0;
  if (length > 20) {
    if (length === 21 || text.charCodeAt(19) !== 0x2e) return false;
    nanoseconds = digits(text, 20, length - 21) * 10 ** (9 - (length - 21));
  }
  const separators =
    text.charCodeAt(4) === 0x2d && text.charCodeAt(7) === 0x2d && text.charCodeAt(13) === 0x3a && text.charCodeAt(16) === 0x3a;
  // A character that was no digit made its number NaN, and NaN fails every comparison.
  if (!separators || !(nanoseconds >= 0) || !validCivil(year, month, day, hour, minute, second) || year < 1970 || year > 2261) return false;
  target.seconds = epochDays(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
  target.nanoseconds = nanoseconds;
  return true;
}

function digits(text: string, from: number, count: number): number {
  let value = 0;
  for (let i = from; i < from + count; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
  }
  return value;
}

const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] as const;

/** Second 60 is taken for leap seconds. */
function validCivil(year: number, month: number, day: number, hour: number, minute: number, second: number): boolean {
  if (!(month >= 1 && month <= 12 && day >= 1 && hour <= 23 && minute <= 59 && second <= 60)) return false;
  const leap = month === 2 && year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 1 : 0;
  return day <= MONTH_DAYS[month - 1]! + leap;
}

/** Days since 1970-01-01 of a Gregorian date. Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil. */
function epochDays(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

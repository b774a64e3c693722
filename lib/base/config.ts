// Settings: declared beside their use, read once by cmd/.
//
// Promises: every setting has a name, a unit, a default and a reason; all faults of a start are reported at once; a
// value that starts with "file:" is read from that file, so that secrets need not stand in the environment.

import type { ZodType } from "zod";
import { z } from "zod";

export interface Setting<T> {
  /** Name of the environment variable. */
  readonly env: string;
  readonly type: ZodType<T>;
  /** Text of the default as the environment would hold it; undefined means that the setting must be given. */
  readonly fallback: string | undefined;
  readonly unit: string;
  /** What it is for and why the default is what it is. */
  readonly why: string;
  /** Never printed. */
  readonly secret: boolean;
}

export type Settings = Readonly<Record<string, Setting<unknown>>>;
export type Values<S extends Settings> = { readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

const UNITS: Record<string, number> = { "": 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
const DURATIONS: Record<string, number> = { "": 1, ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

function scaled(units: Record<string, number>, what: string) {
  return z.string().transform((text, context) => {
    const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]*)$/.exec(text.trim());
    const factor = match && Object.hasOwn(units, match[2]!) ? units[match[2]!] : undefined;
    if (match === null || factor === undefined) {
      context.addIssue({ code: "custom", message: `expected ${what}, got "${text}"` });
      return z.NEVER;
    }
    return Math.round(Number(match[1]) * factor);
  });
}

function declare<T>(env: string, type: ZodType<T>, unit: string, fallback: string | undefined, why: string, secret = false): Setting<T> {
  return { env, type, unit, fallback, why, secret };
}

/** A size; the environment may say 1048576, 1MiB, 2GiB. The value is in bytes. */
export const bytes = (env: string, fallback: string, why: string): Setting<number> =>
  declare(env, scaled(UNITS, "a size such as 512KiB"), "bytes", fallback, why);

/** A duration; the environment may say 250, 250ms, 10s, 5m, 2h, 7d. The value is in milliseconds. */
export const duration = (env: string, fallback: string, why: string): Setting<number> =>
  declare(env, scaled(DURATIONS, "a duration such as 250ms, 10s or 7d"), "ms", fallback, why);

/** A whole number within [min, max]. */
export const integer = (env: string, fallback: string, [min, max]: readonly [number, number], unit: string, why: string): Setting<number> =>
  declare(env, z.coerce.number().int().min(min).max(max), unit, fallback, why);

/** A text; without a fallback it must be given. */
export const text = (env: string, fallback: string | undefined, why: string): Setting<string> =>
  declare(env, z.string(), "text", fallback, why);

/** A text that is never printed. */
export const secret = (env: string, fallback: string | undefined, why: string): Setting<string> =>
  declare(env, z.string(), "text", fallback, why, true);

/** One of a few words. */
export const choice = <const T extends string>(env: string, words: readonly [T, ...T[]], fallback: T, why: string): Setting<T> =>
  declare(env, z.enum(words) as unknown as ZodType<T>, words.join(" | "), fallback, why);

/** All faults of a configuration, one a line. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(`the configuration has ${faults.length} fault(s):\n  ${faults.join("\n  ")}`);
    this.faults = faults;
  }
}

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the settings of one process from an environment.
 * @param relations further checks between values; each returns a sentence when it is violated, else undefined
 * @throws ConfigError with every fault found
 */
export function readSettings<S extends Settings>(
  settings: S,
  environment: Environment,
  readFile: (path: string) => string,
  ...relations: ((values: Values<S>) => string | undefined)[]
): Values<S> {
  const faults: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries(settings)) {
    let given = environment[setting.env] ?? setting.fallback;
    if (given === undefined) {
      faults.push(`${setting.env} is not set (${setting.unit}): ${setting.why}`);
      continue;
    }
    if (given.startsWith("file:")) {
      const path = given.slice("file:".length);
      try {
        given = readFile(path).trim();
      } catch (error) {
        faults.push(`${setting.env} names the file ${path}, which cannot be read: ${(error as Error).message}`);
        continue;
      }
    }
    const result = setting.type.safeParse(given);
    if (result.success) values[name] = result.data;
    else faults.push(`${setting.env} (${setting.unit}): ${result.error.issues.map((issue) => issue.message).join("; ")}`);
  }
  if (faults.length === 0) {
    for (const relation of relations) {
      const fault = relation(values as Values<S>);
      if (fault !== undefined) faults.push(fault);
    }
  }
  if (faults.length > 0) throw new ConfigError(faults);
  return values as Values<S>;
}

// A seeded source of randomness: a failed run is repeated with RELOG_TEST_SEED.

export { Random } from "../../lib/load/random.ts";

export const seed = Number(process.env.RELOG_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
export const LONG = process.env.RELOG_TEST_LONG === "1";

/** The same test with small numbers by default and large ones behind RELOG_TEST_LONG=1. */
export const scaled = (short: number, long: number): number => (LONG ? long : short);

// Time as a port, so that leases and deadlines can be tested with a fake.

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds of a clock that never jumps; only differences mean something. It goes on while the process is stopped. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
};

/** A day of 24 hours, as UTC's are, in milliseconds. */
export const DAY_MS = 86_400_000;
/** The same in nanoseconds. */
export const DAY_NS = 86_400_000_000_000n;

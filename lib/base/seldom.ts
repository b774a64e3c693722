// What anyone can make happen is said now and then, not each time.

/** @returns a function that is true once in `ms` milliseconds, and how often it was not since. @param monotonicMs a clock that never jumps */
export function seldom(ms: number, monotonicMs: () => number): () => { readonly since: number } | undefined {
  let [nextMs, since] = [Number.NEGATIVE_INFINITY, 0];
  return () => {
    const now = monotonicMs();
    if (now < nextMs) {
      since++;
      return undefined;
    }
    const said = { since };
    [nextMs, since] = [now + ms, 0];
    return said;
  };
}

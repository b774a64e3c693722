// Asking the streams again when no answer comes.
//
// A request that was on its way to a server that died is never answered, while another one would answer it at once: so the first
// wait is short, and the later ones are long enough for a server that has much to do.

/** How long each answer is waited for, one try after the other, milliseconds. */
export const PATIENCE_MS = [400, 1_000, 5_000] as const;
/** Timers may be early by so much. */
const EARLY_MS = 5;

/**
 * Asks again, with more patience, when no answer comes.
 * @param patienceMs of each try
 * @throws what `ask` throws when it is answered with it, and at the end
 */
export async function insistent<T>(
  ask: (timeoutMs: number) => Promise<T>,
  patienceMs: readonly [number, ...number[]] = PATIENCE_MS,
): Promise<T> {
  const [timeoutMs, next, ...later] = patienceMs;
  const beganMs = performance.now();
  try {
    return await ask(timeoutMs);
  } catch (error) {
    if (next === undefined || performance.now() - beganMs < timeoutMs - EARLY_MS) throw error;
  }
  return await insistent(ask, [next, ...later]);
}

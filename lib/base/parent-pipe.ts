// Following the parent: a service started by the dev stack leaves when its parent is gone, even after kill -9.

/**
 * Calls `onGone` once when stdin ends. The parent holds the other end and sets RELOG_PARENT_PIPE=1;
 * without that variable do not call this, since a service's stdin may be /dev/null.
 */
export function followParent(onGone: () => void): void {
  let gone = false;
  function once(): void {
    if (gone) return;
    gone = true;
    onGone();
  }
  process.stdin.once("end", once);
  process.stdin.once("close", once);
  process.stdin.once("error", once);
  process.stdin.resume();
  // The pipe must not keep a process alive that has finished its work.
  if ("unref" in process.stdin) process.stdin.unref();
}

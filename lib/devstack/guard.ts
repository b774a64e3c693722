// Makes a child die with its parent, also when the parent gets SIGKILL.
//
// Promises: the child keeps the pid that spawn() returns (sh replaces itself by exec), so signals reach it directly; a
// background sh (under 1 MB) waits on fd 3, held by the parent. End of file there means that the parent is gone: SIGTERM,
// a second later SIGKILL. A line there means that the child has ended: the watcher leaves and signals nobody.

const SCRIPT = `( trap '' INT TERM HUP; read -r line <&3 && exit 0; kill -TERM $$; sleep 1; kill -CONT $$; kill -KILL $$ ) </dev/null >/dev/null 2>&1 &
exec "$@" 3<&-`;

/** The fd that the parent holds. */
export const GUARD_FD = 3;

export function guarded(command: string, args: readonly string[]): [string, string[]] {
  return ["/bin/sh", ["-c", SCRIPT, "relog-guard", command, ...args]];
}

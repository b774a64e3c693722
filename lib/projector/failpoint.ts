// Places at which a fault test ends the process, as a crash would.

import type { Failpoint } from "./settle.ts";

/** @param spec "name:count": the count-th time that the step is reached, the process gets SIGKILL; empty does nothing */
export function failpointFrom(spec: string): Failpoint {
  const [wanted, count = "1"] = spec.split(":") as [string, string?];
  let left = Number(count);
  return (name) => {
    if (name === wanted && --left === 0) process.kill(process.pid, "SIGKILL");
  };
}

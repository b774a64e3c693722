// How many tails may run: of this process, and of one tenant in it.

import { RelogError } from "../base/errors.ts";
import type { Principal } from "../base/principal.ts";

/** Takes a place for one more tail until it is disposed. @throws RelogError too_many_tails that names the limit */
export type Slots = (principal: Principal) => Disposable;

const RETRY_S = 5;

/** Places of one process, and each tenant's share of them. */
export function processSlots({ tailsMax, tailsPerTenant }: { readonly tailsMax: number; readonly tailsPerTenant: number }): Slots {
  const tenants = new Map<string, number>();
  let all = 0;
  return ({ tenant }) => {
    const own = tenants.get(tenant) ?? 0;
    if (all >= tailsMax) throw tooMany(`${tailsMax} live tails are running, the limit of this process (RELOG_TAILS_MAX)`);
    if (own >= tailsPerTenant)
      throw tooMany(`the tenant has ${own} live tails here, the limit of one tenant in a process (RELOG_TAILS_PER_TENANT)`);
    all++;
    tenants.set(tenant, own + 1);
    return once(() => {
      all--;
      const left = tenants.get(tenant)! - 1;
      if (left === 0) tenants.delete(tenant);
      else tenants.set(tenant, left);
    });
  };
}

/** A place of each; of all or of none. */
export function slotsOfAll(...each: readonly Slots[]): Slots {
  return (principal) => {
    using stack = new DisposableStack();
    for (const slots of each) stack.use(slots(principal));
    const taken = stack.move();
    return once(() => taken.dispose());
  };
}

function tooMany(message: string): RelogError {
  return new RelogError("too_many_tails", message, { retryAfterS: RETRY_S });
}

function once(give: () => void): Disposable {
  let given = false;
  return {
    [Symbol.dispose]() {
      if (!given) give();
      given = true;
    },
  };
}

// Usage over HTTP.
//
// Promises: a tenant's key sees its own usage and learns nothing of others, not even whether they are there; an operator's sees
// every tenant's; answers under way are bounded.

import { Hono } from "hono";
import { serveEndpoint } from "../base/endpoint.ts";
import { RelogError } from "../base/errors.ts";
import { Bound } from "../base/loop.ts";
import type { Authenticate, Principal } from "../base/principal.ts";
import type { UsagePorts } from "./answer.ts";
import { usageAnswer, whatIfAnswer } from "./answer.ts";
import { USAGE_ENDPOINTS as E } from "./endpoints.ts";

/** Each is a few small queries. */
const ANSWERS_MAX = 8;

export interface UsageApiPorts extends UsagePorts {
  /** Whether every account was read. */
  ready(): boolean;
}

/** The endpoints of lib/usage/endpoints.ts. */
export function usageApi(authenticate: Authenticate, ports: UsageApiPorts): Hono {
  const app = new Hono();
  const answers = new Bound(ANSWERS_MAX);
  async function bounded<T>(work: () => Promise<T>): Promise<T> {
    if (!ports.ready()) throw new RelogError("not_ready", "the accounts are not read yet", { retryAfterS: 1 });
    if (!answers.tryTake(1))
      throw new RelogError("too_many_requests", `${ANSWERS_MAX} answers about usage are under way`, { retryAfterS: 1 });
    try {
      return await work();
    } finally {
      answers.give(1);
    }
  }
  serveEndpoint(app, authenticate, E.usage, ({ principal, query }) =>
    bounded(() => usageAnswer(ports, reached(principal, query.tenant), query)),
  );
  serveEndpoint(app, authenticate, E.whatIf, ({ principal, query }) =>
    bounded(() => whatIfAnswer(ports, reached(principal, query.tenant), query)),
  );
  return app;
}

/** @throws RelogError not_found for another's tenant, whether it is there or not */
function reached(principal: Principal, tenant = principal.tenant): string {
  if (principal.operator !== true && principal.tenant !== tenant)
    throw new RelogError("not_found", `there is no tenant "${tenant}" that this key reaches`);
  return tenant;
}

// What operators ask of the scheduler over HTTP.
//
// Promises: nothing here answers without the key of an operator of the installation, which lives when a body that it sends is there.

import { Hono } from "hono";
import { STILL_ALLOWED } from "../base/body.ts";
import type { Authenticate } from "../base/principal.ts";
import { authorizeOperator } from "../base/principal.ts";
import type { JobReport } from "./jobs.ts";

/** GET /v1/jobs: the background jobs and how they are. */
export function jobRoutes(report: () => JobReport[]): Hono {
  const app = new Hono();
  app.get("/v1/jobs", (c) => c.json({ jobs: report().map((job) => ({ ...job, since: new Date(job.since).toISOString() })) }));
  return app;
}

/** The routes, for operators: also what is not there is said to operators only. */
export function operatorApi(authenticate: Authenticate, routes: readonly Hono[]): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    const operator = () => authorizeOperator(authenticate, (name) => c.req.header(name));
    await operator();
    c.set(STILL_ALLOWED, operator);
    await next();
  });
  for (const one of routes) app.route("/", one);
  return app;
}

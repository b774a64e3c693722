// Tables from the archive over HTTP, for operators.
//
// Promises: what is asked for here is done by the scheduler, also after it was killed.

import { Hono } from "hono";
import { readBody } from "../base/body.ts";
import { RelogError } from "../base/errors.ts";
import { beginDrop, handToScheduler } from "./control.ts";
import { rehydrateSpec, shown, specOf, tableName } from "./job.ts";
import type { RehydratePorts } from "./ports.ts";
import { listRehydrations } from "./runner.ts";

const BODY_BYTES_MAX = 16 * 2 ** 10;

/** GET and POST /v1/archive/tables, DELETE /v1/archive/tables/:name. */
export function rehydrateApi(ports: RehydratePorts): Hono {
  const app = new Hono();
  app.get("/v1/archive/tables", async (c) => c.json({ tables: (await listRehydrations(ports)).map(shown) }));
  app.post("/v1/archive/tables", async (c) => {
    const spec = specOf(parsed((await readBody(c, BODY_BYTES_MAX)).toString("utf8")), ports);
    return c.json(shown(await handToScheduler(ports, spec)), 202);
  });
  app.delete("/v1/archive/tables/:name", async (c) => {
    const name = tableName.safeParse(c.req.param("name").replace(/^archive_/, ""));
    if (!name.success) throw new RelogError("not_found", "there is no such table; GET /v1/archive/tables lists them");
    return c.json(shown(await beginDrop(ports, name.data)), 202);
  });
  return app;
}

/** @throws RelogError bad_request that names every fault */
function parsed(text: string) {
  if (Buffer.byteLength(text) > BODY_BYTES_MAX) throw new RelogError("body_too_large", `the body is larger than ${BODY_BYTES_MAX} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RelogError("bad_request", "the body is not valid JSON");
  }
  const result = rehydrateSpec.safeParse(value);
  if (result.success) return result.data;
  const faults = result.error.issues.map(({ path, message }) => `${path.join(".") || "body"}: ${message}`);
  throw new RelogError("bad_request", faults.join("; ").slice(0, 500));
}

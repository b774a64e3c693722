// The body of a small request, read within a bound, whether its length is announced or not.

import type { Context } from "hono";
import { RelogError } from "./errors.ts";

/** Under this name a request's context has what is asked again when its body is there: a key may have been revoked meanwhile. */
export const STILL_ALLOWED = "stillAllowed";

declare module "hono" {
  interface ContextVariableMap {
    [STILL_ALLOWED]: () => Promise<unknown>;
  }
}

/**
 * Reads the body of a request.
 * @param setting names what moves the bound; empty when nothing does
 * @throws RelogError body_too_large as soon as it is more than `bytesMax` bytes; what `STILL_ALLOWED` throws
 */
export async function readBody(c: Context, bytesMax: number, setting = ""): Promise<Buffer> {
  const tooLarge = (): RelogError =>
    new RelogError("body_too_large", `the body is larger than ${bytesMax} bytes${setting === "" ? "" : ` (${setting})`}`);
  if (Number(c.req.header("content-length") ?? 0) > bytesMax) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of (c.req.raw.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > bytesMax) throw tooLarge();
    chunks.push(chunk);
  }
  await (c.get(STILL_ALLOWED) as (() => Promise<unknown>) | undefined)?.();
  return Buffer.concat(chunks);
}

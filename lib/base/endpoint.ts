// An HTTP endpoint as data: what it takes, what it answers and who may call it; served and described from the same schemas.
//
// Promises: nothing reaches a handler that its schemas do not allow; every fault of a request is named at once; bodies are
// bounded; who may call is checked before anything is read, and again when all is there: a body may come long after its headers,
// and a key that was revoked meanwhile does nothing any more.

import type { Context, Hono } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { ZodObject, ZodType, z } from "zod";
import { readBody } from "./body.ts";
import type { ErrorCode } from "./errors.ts";
import { RelogError } from "./errors.ts";
import type { Authenticate, Principal, Scope } from "./principal.ts";
import { authorize, authorizeOperator } from "./principal.ts";

/** Who may call: anyone with a key, a key with a scope or one of two, or an operator. */
export type Access = "key" | Scope | "query|admin" | "operator";

export interface Endpoint<P extends ZodObject = ZodObject, Q extends ZodObject = ZodObject, B extends ZodType = ZodType> {
  /** Unique; the operation's id in OpenAPI. */
  readonly id: string;
  readonly method: "get" | "post" | "patch" | "delete";
  /** Parameters as `{name}`. */
  readonly path: string;
  readonly summary: string;
  readonly access: Access;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  readonly status?: 200 | 201;
  readonly answer: ZodType;
  /** Codes of errors besides those that every endpoint has. */
  readonly errors?: readonly ErrorCode[];
}

/** Keeps the schemas' types. */
export function endpoint<P extends ZodObject, Q extends ZodObject, B extends ZodType>(given: Endpoint<P, Q, B>): Endpoint<P, Q, B> {
  return given;
}

export interface Call<E extends Endpoint> {
  readonly principal: Principal;
  readonly params: E extends Endpoint<infer P, ZodObject, ZodType> ? z.infer<P> : never;
  readonly query: E extends Endpoint<ZodObject, infer Q, ZodType> ? z.infer<Q> : never;
  readonly body: E extends Endpoint<ZodObject, ZodObject, infer B> ? z.infer<B> : never;
  /** The address of whoever is connected; "" when there is no socket. */
  readonly client: string;
}

const BODY_BYTES_MAX = 64 * 1024;
const FAULTS_CHARS_MAX = 1_000;

/** Serves an endpoint on an app that answers errors by the contract. */
export function serveEndpoint<E extends Endpoint>(
  app: Hono,
  authenticate: Authenticate,
  declared: E,
  handle: (call: Call<E>) => Promise<object> | object,
): void {
  const { access, params, query, body, status = 200 } = declared;
  app.on(declared.method.toUpperCase(), declared.path.replace(/\{(\w+)\}/g, ":$1"), async (c) => {
    const caller = () => permitted(authenticate, access, (name) => c.req.header(name));
    const principal = await caller();
    const given = {
      params: params === undefined ? {} : parsed(params, c.req.param(), "path"),
      query: parsed(query, queryOf(c), "query"),
      body: body === undefined ? undefined : parsed(body, await jsonOf(c), "body"),
      client: clientOf(c),
    };
    const call = { ...given, principal: body === undefined ? principal : await caller() };
    c.header("cache-control", "no-store");
    return c.json(await handle(call as Call<E>), status as ContentfulStatusCode);
  });
}

async function permitted(authenticate: Authenticate, access: Access, header: (name: string) => string | undefined): Promise<Principal> {
  if (access === "operator") return await authorizeOperator(authenticate, header);
  if (access === "query|admin") {
    const principal = await authorize(authenticate, header);
    if (!principal.scopes.some((scope) => scope === "query" || scope === "admin"))
      throw new RelogError("forbidden", 'the API key has neither the scope "query" nor "admin"');
    return principal;
  }
  return await authorize(authenticate, header, access === "key" ? undefined : access);
}

function parsed(type: ZodType | undefined, value: unknown, where: string): unknown {
  if (type === undefined) {
    const [name] = Object.keys(value as object);
    if (name !== undefined) throw new RelogError("bad_request", `${where}: there is no parameter ${JSON.stringify(name.slice(0, 64))}`);
    return {};
  }
  const result = type.safeParse(value);
  if (result.success) return result.data;
  const faults = result.error.issues.map((issue) => `${issue.path.join(".") || where}: ${issue.message}`);
  throw new RelogError("bad_request", faults.join("; ").slice(0, FAULTS_CHARS_MAX));
}

function queryOf(c: Context): Record<string, string> {
  const given: Record<string, string> = {};
  for (const [name, values] of Object.entries(c.req.queries())) {
    if (values.length > 1) throw new RelogError("bad_request", `${name.slice(0, 64)}: it may be given once`);
    given[name] = values[0]!;
  }
  return given;
}

async function jsonOf(c: Context): Promise<unknown> {
  const bytes = await readBody(c, BODY_BYTES_MAX);
  if (bytes.length === 0) return {};
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new RelogError("bad_request", "the body is not JSON");
  }
}

function clientOf(c: Context): string {
  const env = c.env as { incoming?: { socket?: { remoteAddress?: string } } } | undefined;
  return env?.incoming?.socket?.remoteAddress ?? "";
}

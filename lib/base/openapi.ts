// The OpenAPI document of endpoints, from the schemas that check their requests; and a page of it to read.
//
// Promises: what the document says of a request is what is enforced; the page is one file of plain HTML without scripts, and
// loads nothing from anywhere.

import { Hono } from "hono";
import type { ZodObject, ZodType } from "zod";
import { z } from "zod";
import type { Access, Endpoint } from "./endpoint.ts";
import type { ErrorCode } from "./errors.ts";
import { ERRORS } from "./errors.ts";

type Json = Record<string, unknown>;

interface Parameter {
  readonly name: string;
  readonly in: "path" | "query";
  readonly required: boolean;
  readonly schema: Json;
}

interface Operation extends Json {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Json };
  readonly responses: Readonly<Record<string, { readonly description: string }>>;
}

export interface OpenApi extends Json {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

const ACCESS: Readonly<Record<Access, string>> = {
  key: "any key",
  ingest: 'a key with the scope "ingest"',
  query: 'a key with the scope "query"',
  admin: 'a key with the scope "admin"',
  "query|admin": 'a key with the scope "query" or "admin"',
  operator: "the key of an operator of the installation",
};
const ALWAYS: readonly ErrorCode[] = ["unauthenticated", "bad_request", "not_ready"];
const VERSION = "3.1.0";

function schemaOf(type: ZodType, io: "input" | "output"): Json {
  const { $schema: _, ...schema } = z.toJSONSchema(type, { io, unrepresentable: "any" }) as Json;
  return schema;
}

function parametersOf(type: ZodObject | undefined, where: "path" | "query"): Parameter[] {
  if (type === undefined) return [];
  const { properties = {}, required = [] } = schemaOf(type, "input") as { properties?: Record<string, Json>; required?: string[] };
  return Object.entries(properties).map(([name, schema]) => ({ name, in: where, required: required.includes(name), schema }));
}

function operationOf(one: Endpoint): Operation {
  const errors = Map.groupBy(
    [...ALWAYS, ...(one.access === "key" ? [] : (["forbidden"] as const)), ...(one.errors ?? [])],
    (code) => ERRORS[code].status,
  );
  const refusals = [...errors]
    .sort(([a], [b]) => a - b)
    .map(([status, codes]) => {
      const description = codes.map((code) => `\`${code}\`: ${ERRORS[code].help}`).join(" ");
      return [String(status), { description, content: json({ $ref: "#/components/schemas/Error" }) }] as const;
    });
  return {
    operationId: one.id,
    summary: one.summary,
    description: `Needs ${ACCESS[one.access]}.`,
    parameters: [...parametersOf(one.params, "path"), ...parametersOf(one.query, "query")],
    ...(one.body === undefined ? {} : { requestBody: { required: true, content: json(schemaOf(one.body, "input")) } }),
    responses: Object.fromEntries([
      [String(one.status ?? 200), { description: "Done.", content: json(schemaOf(one.answer, "output")) }],
      ...refusals,
    ]),
  };
}

const json = (schema: Json): Json => ({ "application/json": { schema } });

/** The document. @throws Error when two endpoints have one id, or one method and path */
export function openApiDocument(endpoints: readonly Endpoint[], info: OpenApi["info"]): OpenApi {
  const paths: Record<string, Record<string, Operation>> = {};
  const ids = new Set<string>();
  for (const one of endpoints) {
    const path = paths[one.path] ?? {};
    paths[one.path] = path;
    if (ids.has(one.id) || Object.hasOwn(path, one.method)) throw new Error(`the endpoint ${one.id} is described twice`);
    ids.add(one.id);
    path[one.method] = operationOf(one);
  }
  const error = z.object({ error: z.looseObject({ code: z.string(), message: z.string(), help: z.string() }) });
  return {
    openapi: VERSION,
    info,
    security: [{ key: [] }, { header: [] }],
    paths,
    components: {
      schemas: { Error: schemaOf(error, "output") },
      securitySchemes: { key: { type: "http", scheme: "bearer" }, header: { type: "apiKey", in: "header", name: "X-API-Key" } },
    },
  };
}

const escaped = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
/** Text of ours with `code` in it. */
const marked = (text: string): string => escaped(text).replace(/`([^`]*)`/g, "<code>$1</code>");
const shown = (schema: unknown): string => `<pre>${escaped(JSON.stringify(schema, null, 2))}</pre>`;

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
h2{margin-top:2.5rem;font-size:1.1rem;border-top:1px solid #8886;padding-top:1rem}pre,code{font-family:ui-monospace,monospace;font-size:.85em}
pre{background:#8882;padding:.7rem;overflow-x:auto}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #8883}
nav li{list-style:none}nav ul{padding:0}b.m{display:inline-block;min-width:4.5rem}summary{cursor:pointer}`;

function section(path: string, method: string, operation: Operation): string {
  const { operationId, summary, description, parameters, requestBody, responses } = operation;
  const rows = parameters.map(({ name, in: where, required, schema }) => {
    const { description: about = "", ...type } = schema as { description?: string };
    return `<tr><td><code>${escaped(name)}</code></td><td>${where}${required ? ", must be given" : ""}</td><td>${marked(about)} <code>${escaped(JSON.stringify(type))}</code></td></tr>`;
  });
  const answers = Object.entries(responses).map(([status, answer]) => {
    const content = (answer as { content?: Record<string, { schema?: Json }> }).content?.["application/json"]?.schema;
    const body = content === undefined || "$ref" in content ? "" : `<details><summary>schema</summary>${shown(content)}</details>`;
    return `<tr><td>${escaped(status)}</td><td>${marked(answer.description)}${body}</td></tr>`;
  });
  const content = requestBody?.content["application/json"] as { schema: Json } | undefined;
  return [
    `<h2 id="${escaped(operationId)}"><code><b class="m">${method.toUpperCase()}</b>${escaped(path)}</code></h2>`,
    `<p>${marked(summary)} ${marked(String(description))}</p>`,
    rows.length === 0 ? "" : `<table><tr><th>parameter</th><th>where</th><th>what</th></tr>${rows.join("")}</table>`,
    content === undefined ? "" : `<details><summary>body</summary>${shown(content.schema)}</details>`,
    `<table><tr><th>status</th><th>answer</th></tr>${answers.join("")}</table>`,
  ].join("\n");
}

/** The document as a page. */
export function openApiPage({ info, paths }: OpenApi): string {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  const links = operations.map(
    ({ path, method, operation }) =>
      `<li><a href="#${escaped(operation.operationId)}"><code><b class="m">${method.toUpperCase()}</b>${escaped(path)}</code></a> ${marked(operation.summary)}</li>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escaped(info.title)}</title><style>${STYLE}</style></head>
<body><h1>${escaped(info.title)}</h1><p>${marked(info.description)}</p><p><a href="openapi.json">openapi.json</a>, version ${escaped(info.version)}</p>
<nav><ul>${links.join("\n")}</ul></nav>
${operations.map(({ path, method, operation }) => section(path, method, operation)).join("\n")}
</body></html>
`;
}

/** `GET /openapi.json` and `GET /docs`, for everyone: nothing in them is a secret. */
export function openApiRoutes(document: OpenApi): Hono {
  const [text, page] = [JSON.stringify(document), openApiPage(document)];
  const headers = { "x-content-type-options": "nosniff", "cache-control": "max-age=300" };
  const policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
  const app = new Hono();
  app.get("/openapi.json", (c) => c.body(text, 200, { ...headers, "content-type": "application/json" }));
  app.get("/docs", (c) => c.body(page, 200, { ...headers, "content-type": "text/html; charset=utf-8", "content-security-policy": policy }));
  return app;
}

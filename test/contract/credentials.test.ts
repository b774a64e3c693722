// Every HTTP endpoint with every credential that must not open it, and with those that must. What is open says nothing of tenants.

import { readdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import type { ConnectionOptions, NatsConnection, NatsError } from "nats";
import { connect } from "nats";
import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service, ServiceName } from "../../lib/devstack/service.ts";
import { startStack } from "../../lib/devstack/stack.ts";
import { Rig } from "../fault/kit.ts";
import { internal, keysOn } from "./keys.ts";
import type { Credentials, Line } from "./walls-kit.ts";
import { ACME, LINES, makeCredentials, NO_METHOD, OPEN, OPEN_DOCUMENTS, OTHER, refusal, SOMEBODY, SPARE, TENANTS } from "./walls-kit.ts";

let rig: Rig;
let nc: NatsConnection;
let services: Record<ServiceName, Service>;
let made: Credentials;

beforeAll(async () => {
  rig = new Rig(await startStack({ env: process.env }));
  const [gateway, query, scheduler] = await Promise.all([rig.gateway(), rig.service("query"), rig.service("scheduler")]);
  services = { gateway, query, scheduler, projector: await rig.projector() };
  nc = await internal(rig.stack);
  made = await makeCredentials(await keysOn(nc));
  // Who knows the key that was made last knows all before it.
  for (const line of LINES.filter(([, , path]) => /ingest|whoami|jobs/.test(path)))
    await waitFor("the last key to be known", async () => {
      const { status } = await ask(line, [...made.somebody.values()].at(-1)!);
      return status === 401 || status === 503 ? undefined : true;
    });
  // The removal of a deleted tenant writes its certificate.
  const certificate: Line = ["query", "GET", "/v1/tenants/walls-gone/certificate", "operator", 200];
  await waitFor("the end of a removal", async () =>
    /"state":"removed"/.test((await ask(certificate, { "x-api-key": rig.key })).text) ? true : undefined,
  );
  await waitFor("a key to expire", () => (Date.now() > made.expiredMs ? true : undefined));
});
afterAll(async () => {
  await nc?.close();
  await rig?.[Symbol.asyncDispose]();
});

interface Answer {
  readonly status: number;
  readonly code: string | undefined;
  readonly text: string;
}

async function ask([where, method, path, , , body]: Line, headers: Readonly<Record<string, string>>): Promise<Answer> {
  const given = typeof body === "string" || body === undefined ? body : JSON.stringify(body);
  const url = `${services[where].url}${path.replace(SPARE, made.spare)}`;
  const answer = await fetch(url, { method, headers, ...(given === undefined ? {} : { body: given }) });
  const text = await answer.text();
  const code = text.startsWith('{"error":') ? (JSON.parse(text) as { error: { code: string } }).error.code : undefined;
  return { status: answer.status, code, text };
}

/** Sequences of the streams: whoever changed or stored something moved one. */
async function sequences(): Promise<number[]> {
  const manager = await nc.jetstreamManager();
  const states = await Promise.all(["CONTROL", "LOGS_0", "LOGS_1", "DEAD_LETTERS"].map((name) => manager.streams.info(name)));
  return states.map(({ state }) => state.last_seq);
}

/** Tries to connect as a producer. @returns the code of the refusal; undefined when it was let in */
async function natsRefusal(options: ConnectionOptions): Promise<string | undefined> {
  try {
    await (await connect({ servers: rig.stack.natsUrl, reconnect: false, ...options })).close();
    return undefined;
  } catch (error) {
    return (error as NatsError).code;
  }
}

const REFUSED: Readonly<Record<number, string>> = { 401: "unauthenticated", 403: "forbidden", 404: "not_found" };
const titled = LINES.map((line) => [`${line[1]} ${line[2]} of the ${line[0]}`, line] as const);

test.each(titled)("%s: no credential opens it that must not, and none changes anything", async (_, line) => {
  const before = await sequences();
  const wrong: string[] = [];
  const attempt = async (name: string, headers: Readonly<Record<string, string>>, status: number): Promise<void> => {
    const answer = await ask(line, headers);
    if (answer.status !== status || answer.code !== REFUSED[status]) wrong.push(`${name}: ${answer.status} ${answer.text.slice(0, 200)}`);
  };
  for (const [name, headers] of made.nobody) await attempt(name, headers, 401);
  for (const [name, headers] of made.somebody) {
    const status = refusal(line[3], SOMEBODY[name]!);
    if (status !== undefined) await attempt(name, headers, status);
  }
  expect(wrong).toEqual([]);
  expect(await sequences()).toEqual(before);
});

test("on NATS no credential opens a connection that must not, as a token or as a password", async () => {
  const before = await sequences();
  const codes = new Map<string, string | undefined>([["none", await natsRefusal({})]]);
  for (const [name, key] of Object.entries(made.keys)) {
    codes.set(name, await natsRefusal({ token: key }));
    codes.set(`${name}, as a password`, await natsRefusal({ user: "anyone", pass: key }));
  }
  // One that is too long is not even read.
  const refused = ([name, code]: [string, string | undefined]) =>
    code === "AUTHORIZATION_VIOLATION" || (/^long/.test(name) && code === "ECONNRESET");
  expect([...codes].filter((one) => !refused(one))).toEqual([]);
  expect(await sequences()).toEqual(before);
});

test("on NATS a key needs the scope of a producer, and reaches its own subject only", async () => {
  for (const [name, headers] of made.somebody) {
    const { scopes, tenant } = SOMEBODY[name]!;
    const token = headers.authorization!.slice("Bearer ".length);
    const code = await natsRefusal({ token });
    expect([name, code]).toEqual([name, scopes.includes("ingest") ? undefined : "AUTHORIZATION_VIOLATION"]);
    if (code !== undefined) continue;
    const producing = await connect({ servers: rig.stack.natsUrl, token, inboxPrefix: `_INBOX_${tenant}` });
    const send = (to: string) => producing.request(`ingest.${to}`, '{"message":"nats"}', { timeout: 10_000 });
    expect((await send(tenant)).json()).toMatchObject({ accepted: 1 });
    const before = await sequences();
    await expect(send(tenant === ACME ? OTHER : ACME)).rejects.toMatchObject({ code: "PERMISSIONS_VIOLATION" });
    expect(await sequences()).toEqual(before);
    await producing.close();
  }
});

test("another tenant gets the same answer for a tenant that is there and for one that is not", async () => {
  const headers = made.somebody.get("another tenant's")!;
  for (const line of LINES.filter(([, , , access]) => access === "own")) {
    const [where, method, path, access, status, body] = line;
    const absent = await ask([where, method, path.replace(ACME, "walls-none"), access, status, body], headers);
    const { text } = await ask(line, headers);
    expect(absent.text).toBe(text.replace(ACME, "walls-none"));
  }
  for (const path of ["/v1/usage?tenant=", "/v1/usage/what-if?bytes_per_day=1&tenant=", "/v1/audit?tenant="]) {
    const answers = [ACME, "walls-none"].map((tenant) => ask(["query", "GET", `${path}${tenant}`, "admin", 404], headers));
    const [there, not] = await Promise.all(answers);
    expect([there!.status, there!.text]).toEqual([404, not!.text.replace("walls-none", ACME)]);
  }
});

test.each([
  ["query", "HEAD", "/v1/tenants", 401],
  ["query", "HEAD", "/v1/whoami", 401],
  ["query", "HEAD", "/v1/tail", 401],
  ["query", "OPTIONS", "/v1/tenants", 404],
  ["query", "GET", "/v1/tenants/", 404],
  ["query", "GET", "//v1/tenants", 404],
  ["query", "GET", "/V1/tenants", 404],
  ["query", "GET", "/v1/%74enants", 401],
  ["query", "GET", "/healthz/../v1/tenants", 401],
  ["query", "GET", "/docs/../v1/tenants", 401],
  ["query", "GET", "/docs/%2e%2e/v1/tenants", 401],
  ["query", "GET", "/v1/tenants/..%2ftenants", 401],
  ["query", "GET", "/v1/tenants?key=relog&api_key=relog&token=relog", 401],
  ["scheduler", "HEAD", "/v1/jobs", 401],
  ["scheduler", "OPTIONS", "/v1/jobs", 401],
  ["scheduler", "GET", "/v1/nothing", 401],
  ["scheduler", "GET", "//v1/jobs", 401],
  ["scheduler", "GET", "/metrics/../v1/jobs", 401],
  ["gateway", "GET", "/v1/jobs", 404],
  ["gateway", "POST", "/v1/tenants", 404],
  ["gateway", "POST", "/v1/query", 404],
] as const)("the %s takes no detour: %s %s without a key is %s", async (where, method, path, status) => {
  // fetch() would resolve dots itself.
  const { hostname, port } = new URL(services[where].url);
  const got = await new Promise<number>((done, fail) => {
    const call = request({ hostname, port, path, method, agent: false }, (answer) => {
      answer.resume();
      done(answer.statusCode!);
    });
    call.on("error", fail);
    call.end();
  });
  expect(got).toBe(status);
});

test.each(NO_METHOD)("the %s answers other methods on %s alike, whoever asks", async (where, path) => {
  for (const headers of [made.nobody.get("none")!, made.somebody.get("every scope")!])
    expect(await ask([where, "PUT", path, "key", 405], headers)).toMatchObject({ status: 405, code: "method_not_allowed" });
});

test("what is open says nothing of tenants and keys, after traffic of two", async () => {
  for (const name of ["every scope", "another tenant's"]) {
    expect((await ask(LINES[0]!, made.somebody.get(name)!)).status).toBe(200);
    await waitFor("its record", async () => {
      const { text } = await ask(LINES[1]!, made.somebody.get(name)!);
      return (JSON.parse(text) as { n: number }).n > 0 ? true : undefined;
    });
  }
  const secrets = [...made.secrets, ...TENANTS, ...made.secrets.map((key) => key.split("_")[1]!), ...Object.values(installationSecrets())];
  for (const [name, { url }] of Object.entries(services))
    for (const path of [...OPEN, ...(name === "query" ? OPEN_DOCUMENTS : [])]) {
      const answer = await fetch(`${url}${path}`);
      const text = await answer.text();
      expect([name, path, answer.status]).toEqual([name, path, 200]);
      expect(secrets.filter((secret) => text.includes(secret)).map((secret) => `${name} ${path}: ${secret}`)).toEqual([]);
    }
});

function installationSecrets(): Record<string, string> {
  return Object.fromEntries(Object.entries(rig.stack.serviceEnv()).filter(([name]) => /KEY|PASSWORD|SEED/.test(name)));
}

test.each(titled)("%s: opens for those that it is for", async (_, line) => {
  const [, , , access, status] = line;
  if (access === "operator") {
    const answer = await ask(line, { "x-api-key": rig.key });
    return expect([answer.status, answer.text]).toEqual([status, answer.text]);
  }
  const names = [...made.somebody.keys()].filter((name) => refusal(access, SOMEBODY[name]!) === undefined);
  for (const name of access === "own" ? ["admin"] : names) {
    const answer = await ask(line, made.somebody.get(name)!);
    expect([name, answer.status, answer.text]).toEqual([name, status, answer.text]);
  }
});

test("every route of the sources and every operation of the document stands in the table", async () => {
  const files = readdirSync("lib", { recursive: true, encoding: "utf8" }).filter(
    (path) => /\.ts$/.test(path) && !/test(ing)?\.ts$/.test(path),
  );
  const sources = files.map((path) => [path, readFileSync(`lib/${path}`, "utf8")] as const);
  // A route that is made in another way would not be found here.
  const others = sources.filter(
    ([path, text]) => path !== "base/endpoint.ts" && /\bapp\.(on|mount|basePath|put|options)\(|\.use\(\s*["'`]/.test(text),
  );
  expect(others.map(([path]) => path)).toEqual([]);
  const normal = (method: string, path: string): string =>
    `${method.toUpperCase()} ${path.replace(/\?.*/, "").replace(/\{\w+\}|:\w+/g, "*")}`;
  const routes = sources.flatMap(([, text]) => [
    ...[...text.matchAll(/\bapp\.(get|post|patch|delete|all)\(\s*"(\/[^"]*)"/g)].map(([, method, path]) => normal(method!, path!)),
    ...[...text.matchAll(/\bmethod: "(\w+)",\s*path: "(\/v1[^"]*)"/g)].map(([, method, path]) => normal(method!, path!)),
  ]);
  const { paths } = JSON.parse(await (await fetch(`${services.query.url}/openapi.json`)).text()) as { paths: Record<string, object> };
  const documented = Object.entries(paths).flatMap(([path, one]) => Object.keys(one).map((method) => normal(method, path)));
  const known = new Set([
    ...LINES.map(([, method, path]) => normal(method, path.replace(ACME, "{tenant}").replace(/\/(01JGK0+|0|1|-)(?=\/|$)/, "/{id}"))),
    ...[...OPEN, ...OPEN_DOCUMENTS].map((path) => `GET ${path}`),
    ...NO_METHOD.map(([, path]) => `ALL ${path}`),
    // It asks for a key before it says so: HEAD above.
    "ALL /v1/tail",
  ]);
  expect([...new Set([...routes, ...documented])].filter((route) => !known.has(route))).toEqual([]);
  expect([...known].filter((route) => !routes.includes(route))).toEqual([]);
});

// Hostile texts, and an installation with two tenants to try them on.

import type { NatsConnection } from "nats";
import { expect } from "vitest";
import { newKey } from "../../lib/accounts/keys.ts";
import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { startStack } from "../../lib/devstack/stack.ts";
import { Rig } from "../fault/kit.ts";
import { internal, keysOn, ME, producer } from "./keys.ts";

export const ESC = "\u001b";
/** What a name must not hold, and a record may. */
export const TEXTS: readonly (readonly [what: string, text: string])[] = [
  ["a line end", 'a\r\n{"level":"fatal","message":"forged"}'],
  ["a header", "a\r\nSet-Cookie: forged=1\r\n\r\nforged"],
  ["NUL", "a\u0000b"],
  ["a cleared screen", `${ESC}[2J${ESC}[H`],
  ["a terminal's title", `${ESC}]0;forged\u0007`],
  ["C1", "a\u009b31mb"],
  ["DEL and backspace", "a\u007f\bb"],
  ["a turned direction", "a\u202eb\u2066c"],
  ["separators of lines", "a\u2028b\u2029c"],
  ["a mark of byte order", "\ufeffa"],
];
/** Only as the name of a tenant: they mean something in subjects, paths or SQL. */
export const NAMES = [
  ".",
  "..",
  "a.b",
  "*",
  ">",
  "a.>",
  "a b",
  " a",
  "$SYS",
  "_INBOX",
  "",
  "unknown",
  "A",
  "ä",
  "a:b",
  "a/b",
  "a%2e",
  "a'--",
  "a`",
];
export const TEXTS_TOO_BAD = [...TEXTS, ["half a pair", "a\ud800b"] as const];
export const ACME = "inject-acme";
export const OTHER = "inject-other";

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
export const RAW = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/u;

export interface Answer {
  readonly status: number;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
  readonly json: any;
}

const SCOPES = ["ingest", "query", "admin"] as const;

/** All services, a connection of theirs, one of acme's producer, and a key of each tenant. */
export class Injection implements AsyncDisposable {
  readonly rig: Rig;
  gateway!: Service;
  query!: Service;
  scheduler!: Service;
  nc!: NatsConnection;
  producing!: NatsConnection;
  keys!: { readonly acme: string; readonly other: string };

  private constructor(rig: Rig) {
    this.rig = rig;
  }

  static async start(): Promise<Injection> {
    await using undo = new AsyncDisposableStack();
    const rig = undo.use(new Rig(await startStack({ env: process.env })));
    const one = new Injection(rig);
    await rig.projector();
    [one.gateway, one.query, one.scheduler] = await Promise.all([rig.gateway(), rig.service("query"), rig.service("scheduler")]);
    one.nc = await internal(rig.stack);
    rig.use({ [Symbol.asyncDispose]: () => one.nc.close() });
    const made = await keysOn(one.nc);
    async function key(tenant: string): Promise<string> {
      await made.tenant(tenant);
      const { id, hash, key: whole } = newKey();
      await made.run(tenant, { type: "create_key", key: id, hash, label: "", scopes: SCOPES, expiresMs: null, operator: false }, ME);
      return whole;
    }
    one.keys = { acme: await key(ACME), other: await key(OTHER) };
    await waitFor("the keys to be known", async () => {
      const answers = [await one.send(one.keys.other, '{"message":"x"}'), await one.call("GET /v1/whoami", undefined, one.keys.other)];
      return answers.every(({ status }) => status === 200) ? true : undefined;
    });
    one.producing = await producer(rig.stack, ACME, one.keys.acme);
    rig.use({ [Symbol.asyncDispose]: () => one.producing.close() });
    undo.move();
    return one;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.rig[Symbol.asyncDispose]();
  }

  async call(line: string, body?: unknown, key = this.rig.key, service = this.query): Promise<Answer> {
    const [method = "", path = ""] = line.split(" ");
    const given = typeof body === "string" || body === undefined ? body : JSON.stringify(body);
    const answer = await fetch(`${service.url}${path}`, {
      method,
      headers: { "x-api-key": key },
      ...(given === undefined ? {} : { body: given }),
    });
    const text = await answer.text();
    return { status: answer.status, text, json: /^[{[]/.test(text) && !text.trim().includes("\n") ? JSON.parse(text) : undefined };
  }

  async send(key: string, body: string, headers: Readonly<Record<string, string>> = {}, parameters = ""): Promise<Answer> {
    const answer = await fetch(`${this.gateway.url}/v1/ingest${parameters}`, {
      method: "POST",
      headers: { "x-api-key": key, ...headers },
      body,
    });
    const text = await answer.text();
    return { status: answer.status, text, json: JSON.parse(text) };
  }

  /** Rows of a batch by SQL, when there are as many. */
  async rows(key: string, batch: string, columns: string, count = 1): Promise<Record<string, unknown>[]> {
    return await waitFor(`${count} rows`, async () => {
      const { text } = await this.call("POST /v1/query", `SELECT ${columns} FROM logs WHERE batch = '${batch}' ORDER BY line`, key);
      const found = text.split("\n").filter((line) => line !== "");
      return found.length >= count ? found.map((line) => JSON.parse(line) as Record<string, unknown>) : undefined;
    });
  }

  /** Where CONTROL ends. */
  async controlSeq(): Promise<number> {
    return (await (await this.nc.jetstreamManager()).streams.info("CONTROL")).state.last_seq;
  }

  /** Checks that what the services logged are records of theirs, each a line that a terminal may show. */
  expectHarmlessLogs(): void {
    const lines = this.rig.services.flatMap(({ child, logs }) => logs.map((line) => [child.name, line] as const));
    expect(lines.length).toBeGreaterThan(10);
    for (const [name, line] of lines) {
      expect([name, JSON.parse(line)]).toEqual([name, expect.objectContaining({ service: "relog", level: expect.any(String) })]);
      expect(line).not.toMatch(RAW);
      expect(line).not.toContain('"message":"forged"');
    }
  }
}

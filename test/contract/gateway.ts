// One gateway and one projector on engines of their own, for a file of contract tests.

import { waitFor } from "../../lib/base/loop.ts";
import type { Service } from "../../lib/devstack/service.ts";
import { startService } from "../../lib/devstack/service.ts";
import type { Stack } from "../../lib/devstack/stack.ts";
import { startStack } from "../../lib/devstack/stack.ts";

/** A batch of many days is a part a day. */
const ROWS_MS = 45_000;

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
  readonly json: any;
}

export class Installation implements AsyncDisposable {
  readonly stack: Stack;
  readonly gateway: Service;
  readonly #owned: AsyncDisposableStack;

  private constructor(stack: Stack, gateway: Service, owned: AsyncDisposableStack) {
    this.stack = stack;
    this.gateway = gateway;
    this.#owned = owned;
  }

  static async start(env: Readonly<Record<string, string>> = {}): Promise<Installation> {
    await using undo = new AsyncDisposableStack();
    const stack = undo.use(await startStack({ env: process.env }));
    const gateway = undo.use(await startService("gateway", stack, env));
    undo.use(await startService("projector", stack));
    return new Installation(stack, gateway, undo.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }

  get key(): string {
    return this.stack.serviceEnv().RELOG_KEY!;
  }

  /** Sends a body to /v1/ingest as it is. */
  async post(body: string | Buffer, headers: Record<string, string> = {}, query = "", method = "POST"): Promise<Answer> {
    const answer = await fetch(`${this.gateway.url}/v1/ingest${query}`, {
      method,
      headers: { authorization: `Bearer ${this.key}`, "content-type": "application/x-ndjson", ...headers },
      ...(method === "GET" || method === "HEAD" ? {} : { body }),
    });
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, json: text === "" ? undefined : JSON.parse(text) };
  }

  /** Asks the engine itself. */
  async sql(statement: string): Promise<Record<string, unknown>[]> {
    const { url, user, password } = this.stack.clickhouse!;
    const answer = await fetch(`${url}/?output_format_json_quote_64bit_integers=1`, {
      method: "POST",
      headers: { "X-ClickHouse-User": user, "X-ClickHouse-Key": password },
      body: `${statement} FORMAT JSONEachRow`,
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** The rows of a batch in order, when there are as many as expected. */
  async rows(batch: string, expected: number, columns = "*"): Promise<Record<string, unknown>[]> {
    return await waitFor(
      `${expected} rows of ${batch}`,
      async () => {
        const rows = await this.sql(`SELECT ${columns} FROM relog_g1.logs WHERE batch = '${batch}' ORDER BY line`);
        return rows.length >= expected ? rows : undefined;
      },
      ROWS_MS,
    );
  }
}

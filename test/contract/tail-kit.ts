// Readers of live tails, for the tests of them.

import type { IncomingMessage } from "node:http";
import { request } from "node:http";
import { waitFor } from "../../lib/base/loop.ts";

// biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it should be
export type Line = any;

export interface SeenEvent {
  readonly event: string;
  readonly data: Line;
  /** The id that a client would come back with. */
  readonly id: string;
}

export class TailReader implements Disposable {
  readonly status: number;
  readonly #answer: IncomingMessage;
  #text = "";
  #id = "";
  readonly #events: SeenEvent[] = [];
  ended: "clean" | "broken" | undefined;

  private constructor(answer: IncomingMessage) {
    this.#answer = answer;
    this.status = answer.statusCode!;
    answer.setEncoding("utf8");
    answer.on("data", (text: string) => this.#take(text));
    answer.on("end", () => {
      this.ended ??= "clean";
    });
    answer.on("error", () => {
      this.ended ??= "broken";
    });
  }

  /** Resolves when the tail stands: what is stored from now on comes. */
  static open(url: string, key: string, query = "", headers: Record<string, string> = {}): Promise<TailReader> {
    return new Promise((done, fail) => {
      const call = request(`${url}/v1/tail${query}`, { headers: { authorization: `Bearer ${key}`, ...headers }, agent: false });
      call.on("response", (answer) => done(new TailReader(answer)));
      call.on("error", fail);
      call.end();
    });
  }

  /** As Server-Sent Events. */
  static events(url: string, key: string, query = "", lastId?: string): Promise<TailReader> {
    return TailReader.open(url, key, query, {
      accept: "text/event-stream",
      ...(lastId === undefined ? {} : { "last-event-id": lastId }),
    });
  }

  get events(): readonly SeenEvent[] {
    return this.#events;
  }

  /** Every line or event's data so far, empty ones not. */
  get lines(): Line[] {
    return this.#events.map(({ data }) => data);
  }

  get records(): Line[] {
    return this.lines.filter((line) => line.batch !== undefined);
  }

  get messages(): string[] {
    return this.records.map(({ message }) => message as string);
  }

  get lastId(): string {
    return this.#id;
  }

  header(name: string): string | undefined {
    return this.#answer.headers[name] as string | undefined;
  }

  pause(): void {
    this.#answer.pause();
  }

  resume(): void {
    this.#answer.resume();
  }

  async until(count: number): Promise<Line[]> {
    return await waitFor(`${count} records of a tail`, () => (this.records.length >= count ? this.records : undefined), 30_000).catch(
      (error: unknown) => {
        throw new Error(`${(error as Error).message}: ${this.records.length} came, then ${JSON.stringify(this.lines.at(-1))}`);
      },
    );
  }

  async end(): Promise<"clean" | "broken"> {
    return await waitFor("the end of a tail", () => this.ended, 10_000, 5);
  }

  [Symbol.dispose](): void {
    this.#answer.destroy();
  }

  #take(text: string): void {
    this.#text += text;
    const events = this.header("content-type")!.startsWith("text/event-stream");
    const parts = this.#text.split(events ? "\n\n" : "\n");
    this.#text = parts.pop()!;
    for (const part of parts)
      if (events) this.#event(part);
      else if (part !== "") this.#events.push({ event: "message", data: JSON.parse(part), id: "" });
  }

  #event(part: string): void {
    const fields = new Map(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)] as const));
    this.#id = fields.get("id") ?? this.#id;
    const data = fields.get("data");
    if (data !== undefined) this.#events.push({ event: fields.get("event") ?? "message", data: JSON.parse(data), id: this.#id });
  }
}

// The two shapes of a tail's answer: lines of JSON, or Server-Sent Events.

import { RelogError } from "../base/errors.ts";
import type { Entry } from "./queue.ts";

export interface TailFormat {
  readonly contentType: string;
  /** Whether entries carry the place that resumes behind them. */
  readonly cursors: boolean;
  /** What is sent first. */
  begin(cursor: string): string;
  text(entry: Entry): string;
  /** What is sent while nothing else is. */
  idle(cursor: string): string;
}

/** How long a client shall wait before it connects again. */
const RETRY_MS = 1_000;

/** Every line is a record, or an object whose only member is `skipped`, `gap`, `error` or `end`; empty lines mean nothing. */
const ndjson: TailFormat = {
  contentType: "application/x-ndjson; charset=utf-8",
  cursors: false,
  begin: () => "\n",
  text: (entry) => `${entry.kind === "skipped" ? JSON.stringify({ skipped: entry.skipped }) : entry.text}\n`,
  idle: () => "\n",
};

/** An event without data sets the id that a client comes back with, and is not shown. Source: WHATWG HTML, 9.2.6. */
const events: TailFormat = {
  contentType: "text/event-stream; charset=utf-8",
  cursors: true,
  begin: (cursor) => `retry: ${RETRY_MS}\nid: ${cursor}\n\n`,
  text(entry) {
    switch (entry.kind) {
      case "record":
        return `id: ${entry.cursor}\ndata: ${entry.text}\n\n`;
      case "skipped":
        return `event: skipped\ndata: ${JSON.stringify({ skipped: entry.skipped })}\n\n`;
      case "note":
        return `event: ${entry.event}\ndata: ${entry.text}\n\n`;
      default:
        throw entry satisfies never;
    }
  },
  idle: (cursor) => `: keep-alive\nid: ${cursor}\n\n`,
};

/** @throws RelogError not_acceptable */
export function chooseTailFormat(accept: string | undefined): TailFormat {
  const types = (accept ?? "*/*").split(",").map((part) => part.split(";")[0]!.trim().toLowerCase());
  if (types.includes("text/event-stream")) return events;
  if (types.some((type) => ["", "*/*", "application/*", "application/x-ndjson", "application/ndjson"].includes(type))) return ndjson;
  throw new RelogError("not_acceptable", "a live tail is application/x-ndjson or text/event-stream");
}

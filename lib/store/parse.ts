// The engine's own lexer and parser, for whoever must know what a statement is before it runs.
//
// Promises: nothing of the statement is executed, not even constant expressions; it runs as the restricted user without
// a tenant; the answers are bounded.

import { RelogError } from "../base/errors.ts";
import type { ClickHouse } from "./client.ts";

/** A token: where it begins and ends, in bytes of the statement, and what ClickHouse's lexer calls it. */
export type SqlToken = readonly [begin: number, end: number, type: string];

export interface SqlParser {
  /** Every token of a text, white space and comments included. Never fails on bad SQL: that gives tokens of type Error... */
  tokens(sql: string): Promise<readonly SqlToken[]>;
  /**
   * The text of EXPLAIN AST. The caller has checked that the statement begins with SELECT, WITH, FROM or a bracket: what
   * else could follow EXPLAIN AST are options, and one of them evaluates.
   */
  ast(sql: string, params: Readonly<Record<string, unknown>>): Promise<string>;
}

const TOKENS_BYTES_MAX = 16 * 2 ** 20;
const AST_BYTES_MAX = 8 * 2 ** 20;
const EXPLAIN = "EXPLAIN AST ";

/** @param reader connected as the restricted user */
export function createSqlParser(reader: ClickHouse): SqlParser {
  return {
    async tokens(sql) {
      // Hex needs no escaping, so there is nothing to get wrong between here and the lexer.
      const hex = Buffer.from(sql, "utf8").toString("hex");
      const statement = `SELECT arrayMap(t -> (t.1, t.2, toString(t.3)), tokenizeQuery(unhex('${hex}'))) AS tokens`;
      const answer = await reader.read({ statement, settings: { default_format: "JSONCompactEachRow" } }, TOKENS_BYTES_MAX);
      const [tokens] = JSON.parse(answer.toString("utf8")) as [[number | string, number | string, string][]];
      return tokens.map(([begin, end, type]) => [Number(begin), Number(end), type] as const);
    },
    async ast(sql, params) {
      try {
        const answer = await reader.read({ statement: EXPLAIN + sql, params, settings: { default_format: "TSVRaw" } }, AST_BYTES_MAX);
        return answer.toString("utf8");
      } catch (error) {
        if (!(error instanceof RelogError) || typeof error.details?.position !== "number") throw error;
        const position = error.details.position - EXPLAIN.length;
        const message = error.message.replace(/failed at position \d+/, `failed at position ${position}`);
        throw new RelogError(error.code, message, { cause: error.cause, details: { ...error.details, position } });
      }
    },
  };
}

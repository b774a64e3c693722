// The gatekeeper: decides whether a statement of a user may reach the engine.
//
// Promises: fails closed. The engine's own lexer and parser say what the statement is, so there is no second grammar that
// could disagree; every node, function and table must be on a list (lists.ts); everything else is refused with the word
// and the reason. What is let through still runs as a restricted user behind a row policy: the gate is the first
// wall of two. The gate executes nothing.

import { RelogError } from "../../base/errors.ts";
import type { AstNode } from "./ast.ts";
import { AstError, parseAst, walkAst } from "./ast.ts";
import { IN_FUNCTIONS, isAllowedFunction, NODE_KINDS, TABLE_FUNCTIONS, TABLES } from "./lists.ts";
import { checkTokens, refuse } from "./tokens.ts";

export type Token = readonly [begin: number, end: number, type: string];

/** The engine's lexer and parser; see lib/store/parse.ts. */
export interface Parser {
  tokens(sql: string): Promise<readonly Token[]>;
  ast(sql: string, params: Readonly<Record<string, unknown>>): Promise<string>;
}

/** Tables that there are for the asking tenant besides those of lists.ts: by name, whether all of the table's records are there yet. */
export type SideTables = ReadonlyMap<string, "complete" | "filling">;

/**
 * Returns the statement that may run.
 * @throws RelogError query_refused, query_invalid, archive_table_filling, or what the parser throws
 */
export type Gate = (sql: string, params: Readonly<Record<string, unknown>>, side?: SideTables) => Promise<string>;

export const NO_TABLES: SideTables = new Map();
const SIDE_PREFIX = "archive_";

/** @param sqlBytesMax the longest statement, in bytes of UTF-8 */
export function createGate(parser: Parser, sqlBytesMax: number): Gate {
  return async function gate(sql, params, side = NO_TABLES) {
    const bytes = Buffer.byteLength(sql);
    if (bytes > sqlBytesMax) {
      throw new RelogError("body_too_large", `the statement has ${bytes} bytes; the limit is ${sqlBytesMax} (RELOG_SQL_BYTES_MAX)`);
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
    if (/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(sql)) refuse("control character", "write it as an escape inside a string");
    if (!sql.isWellFormed()) refuse("statement", "it is not valid Unicode");
    const checked = checkTokens(sql, await parser.tokens(sql));
    // Beyond its own part of the statement such a name would mean the table, though it may not be this tenant's, or not complete.
    const shadow = [...checked.ctes].find((name) => name.startsWith(SIDE_PREFIX));
    if (shadow !== undefined) refuse(shadow, `names that begin with ${SIDE_PREFIX} are for tables from the archive; choose another one`);
    checkTree(treeOf(await parser.ast(checked.sql, params)), checked.ctes, side);
    return checked.sql;
  };
}

function treeOf(text: string): AstNode {
  try {
    return parseAst(text);
  } catch (error) {
    if (error instanceof AstError) return refuse("statement", error.message);
    throw error;
  }
}

/** Checks a tree against the lists. @throws RelogError query_refused */
function checkTree(root: AstNode, ctes: ReadonlySet<string>, side: SideTables): void {
  if (root.kind !== "SelectWithUnionQuery") refuse(root.kind, "only SELECT is allowed");
  walkAst(root, (node, parent) => {
    const held = Object.hasOwn(NODE_KINDS, node.kind) ? NODE_KINDS[node.kind as keyof typeof NODE_KINDS] : undefined;
    if (held === undefined) refuse(node.kind, UNKNOWN_KINDS[node.kind] ?? "this part of SQL is not allowed");
    switch (held) {
      case "anything":
        break;
      case "column":
        // Columns that the engine adds, such as _part or _part_offset, say how much is stored beside one's own.
        if (/(?:^|\.)_\w/.test(node.rest)) refuse(node.rest, "names that begin with _ are not allowed");
        break;
      case "nothing":
        if (node.rest !== "") refuse(`${node.kind} ${node.rest}`, "this part of SQL is not allowed");
        break;
      case "table":
        checkTable(node, parent, ctes, side);
        break;
      case "function":
        checkFunction(node, parent);
        break;
      default:
        held satisfies never;
    }
    checkShape(node);
  });
}

const UNKNOWN_KINDS: Readonly<Record<string, string>> = {
  Set: "SETTINGS are not allowed",
  ColumnsApplyTransformer: "APPLY is not allowed; write the function around each column",
  SampleRatio: "SAMPLE is not allowed",
};

function checkTable(node: AstNode, parent: AstNode | undefined, ctes: ReadonlySet<string>, side: SideTables): void {
  if (parent?.kind !== "TableExpression") refuse(node.rest, "a table can only stand behind FROM or JOIN");
  const known = side.get(node.rest);
  if (TABLES.has(node.rest) || ctes.has(node.rest) || known !== undefined) {
    if (known === "filling") throw filling(node.rest);
    if (!node.rest.includes(".")) return;
  }
  const there = side.size === 0 ? "the table is logs" : `the tables are ${[...TABLES, ...side.keys()].join(", ")}`;
  refuse(node.rest, node.rest.includes(".") ? `names of databases are not allowed; ${there}` : `there is no such table; ${there}`);
}

function filling(table: string): RelogError {
  return new RelogError("archive_table_filling", `${table} is being filled from the archive, and not complete yet`, {
    retryAfterS: FILLING_RETRY_S,
  });
}

const FILLING_RETRY_S = 10;

function checkFunction(node: AstNode, parent: AstNode | undefined): void {
  if (parent?.kind === "TableExpression") {
    if (!TABLE_FUNCTIONS.has(node.rest.toLowerCase())) refuse(node.rest, "this table function is not allowed");
    return;
  }
  if (!isAllowedFunction(node.rest)) refuse(node.rest, "this function is not allowed");
  if (!IN_FUNCTIONS.has(node.rest.toLowerCase())) return;
  const [list, ...more] = node.children;
  const right = list?.children[1];
  if (list?.children.length !== 2 || more.length > 0 || right === undefined) refuse(node.rest, "IN needs a left and a right side");
  // A function on the right is on the list itself, like every function; a plain name would be read as a table.
  const isList = right.kind === "Literal" || right.kind === "Subquery" || right.kind === "Function";
  if (!isList)
    refuse(
      right.rest === "" ? right.kind : right.rest,
      "the right side of IN must be a list or a subquery: x IN (1, 2) or x IN (SELECT y FROM ...)",
    );
}

/** Places where the tree hides what a child is for: FORMAT, INTO OUTFILE and the like are plain children. */
function checkShape(node: AstNode): void {
  switch (node.kind) {
    case "SelectWithUnionQuery":
      if (node.children.some((child) => child.kind === "Set")) refuse("SETTINGS", "SETTINGS are not allowed");
      if (node.children.length > 1) refuse("FORMAT or INTO OUTFILE", "choose the format with the header Accept");
      if (node.children[0]?.kind !== "ExpressionList") refuse(node.kind, "this part of SQL is not allowed");
      return;
    case "TableExpression": {
      const [source, ...names] = node.children;
      const isSource = source?.kind === "TableIdentifier" || source?.kind === "Function" || source?.kind === "Subquery";
      if (!isSource || names.some((child) => child.kind !== "ExpressionList")) {
        refuse(names[0]?.kind ?? source?.kind ?? "FROM", UNKNOWN_KINDS[names[0]?.kind ?? ""] ?? "this kind of source is not allowed");
      }
    }
  }
}

// What the tree does not show: the checks on the tokens of a statement, as the engine's own lexer cut them.
//
// Promises: pure; one statement, that begins like a SELECT; no quoted name with a line break, control character or escape
// in it (EXPLAIN AST prints names raw, so such a name could imitate nodes); no parameter that is a name.

import { RelogError } from "../../base/errors.ts";
import type { Token } from "./gate.ts";

export interface Checked {
  /** The statement without a trailing semicolon and what is behind it. */
  readonly sql: string;
  /** Names that WITH gives to queries, as written. */
  readonly ctes: ReadonlySet<string>;
}

/** A refusal in the words that every refusal has. */
export function refuse(token: string, reason: string, details: Record<string, unknown> = {}): never {
  const shown = token.length > 80 ? `${token.slice(0, 80)}...` : token;
  throw new RelogError("query_refused", `refused "${shown}": ${reason}; see docs/SQL.md`, {
    details: { token: shown, reason, ...details },
  });
}

const FIRST_WORDS: ReadonlySet<string> = new Set(["SELECT", "WITH", "FROM"]);

interface Piece {
  readonly type: string;
  readonly text: string;
  /** Byte of the statement, from 1. */
  readonly position: number;
  readonly begin: number;
}

/** @throws RelogError query_refused or query_invalid, with the place */
export function checkTokens(sql: string, tokens: readonly Token[]): Checked {
  const bytes = Buffer.from(sql, "utf8");
  const pieces: Piece[] = [];
  let end = 0;
  for (const [begin, stop, type] of tokens) {
    // The lexer must account for every byte: what it did not see, nobody checked.
    if (begin !== end) refuse("statement", "its tokens have a gap");
    end = stop;
    if (type === "Whitespace" || type === "Comment" || type === "EndOfStream") continue;
    pieces.push({ type, text: bytes.subarray(begin, stop).toString("utf8"), position: begin + 1, begin });
  }
  if (end !== bytes.length) refuse("statement", "its tokens do not reach its end");
  const semicolon = pieces.findIndex((piece) => piece.type === "Semicolon");
  const statement = semicolon < 0 ? pieces : pieces.slice(0, semicolon);
  const behind = semicolon < 0 ? [] : pieces.slice(semicolon);
  const second = behind.find((piece) => piece.type !== "Semicolon");
  if (second !== undefined) refuse(second.text, "only one statement is allowed", { position: second.position });
  const first = statement[0];
  if (first === undefined) throw new RelogError("query_invalid", "the statement is empty");
  const isSelect = first.type === "OpeningRoundBracket" || (first.type === "BareWord" && FIRST_WORDS.has(first.text.toUpperCase()));
  if (!isSelect) refuse(first.text, "only SELECT is allowed", { position: first.position });
  for (const [index, piece] of statement.entries()) checkPiece(piece, statement, index);
  return { sql: semicolon < 0 ? sql : bytes.subarray(0, behind[0]!.begin).toString("utf8"), ctes: cteNames(statement) };
}

function checkPiece(piece: Piece, statement: readonly Piece[], index: number): void {
  const { type, text, position } = piece;
  // The parser would obey these, and fail on some, before it describes them.
  const [name, sign] = [statement[index + 1], statement[index + 2]];
  const isName = name?.type === "BareWord" || name?.type === "QuotedIdentifier";
  if (type === "BareWord" && text.toUpperCase() === "SETTINGS" && isName && sign?.type === "Equals")
    refuse("SETTINGS", "SETTINGS are not allowed", { position });
  if (type.startsWith("Error")) {
    const details = { position, token: text.slice(0, 80) };
    throw new RelogError("query_invalid", `syntax error at position ${position}: ${type.replace(/^Error/, "")}`, { details });
  }
  switch (type) {
    case "QuotedIdentifier":
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
      if (/[\u0000-\u001f\u007f\\]/.test(text)) refuse(text, "a quoted name may not hold control characters or backslashes", { position });
      return;
    case "OpeningCurlyBrace": {
      const close = statement.findIndex((other, at) => at > index && other.type === "ClosingCurlyBrace");
      const inside = statement.slice(index + 1, close < 0 ? undefined : close);
      const name = inside.find((other) => /identifier/i.test(other.text));
      if (name !== undefined) refuse(name.text, "a parameter can be a value, not a name", { position: name.position });
      return;
    }
    case "VerticalDelimiter":
    case "At":
    case "DoubleAt":
    case "DollarSign":
      refuse(text, "this sign is not part of a SELECT here", { position });
  }
}

/** `x AS (SELECT`, `x (a, b) AS (WITH`, `x AS MATERIALIZED ((`: names of queries. A name too many is denied by the engine's grants. */
function cteNames(statement: readonly Piece[]): Set<string> {
  const names = new Set<string>();
  const word = (piece: Piece | undefined, text: string): boolean => piece?.type === "BareWord" && piece.text.toUpperCase() === text;
  for (const [index, piece] of statement.entries()) {
    if (!word(piece, "AS")) continue;
    let at = index + 1;
    if (word(statement[at], "MATERIALIZED")) at += 1;
    if (word(statement[at], "NOT") && word(statement[at + 1], "MATERIALIZED")) at += 2;
    const inner = statement[at + 1];
    const opensQuery = word(inner, "SELECT") || word(inner, "WITH") || word(inner, "FROM") || inner?.type === "OpeningRoundBracket";
    if (statement[at]?.type !== "OpeningRoundBracket" || !opensQuery) continue;
    let before = index - 1;
    if (statement[before]?.type === "ClosingRoundBracket") {
      while (before >= 0 && statement[before]!.type !== "OpeningRoundBracket") before -= 1;
      before -= 1;
    }
    const name = statement[before];
    if (name?.type === "BareWord") names.add(name.text);
    else if (name?.type === "QuotedIdentifier") names.add(unquoted(name.text));
  }
  return names;
}

/** A quoted name without escapes; a doubled quote stands for one. */
function unquoted(text: string): string {
  const quote = text[0]!;
  return text.slice(1, -1).replaceAll(quote + quote, quote);
}

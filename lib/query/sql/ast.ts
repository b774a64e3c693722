// Reads the text of EXPLAIN AST back into a tree.
//
// Promises: pure; strict: each line is one node, its indentation is its depth, and the number of children that a line
// announces is the number that it has. Anything else throws, so a text that was tampered with (a name with a line break
// in it) does not become a tree. Names with control characters are refused before, in tokens.ts: this is the second check.

export interface AstNode {
  /** The first word of the line: SelectQuery, Function, Identifier, ... */
  readonly kind: string;
  /** What follows the kind, without alias and count: a name or a value. */
  readonly rest: string;
  readonly children: readonly AstNode[];
  readonly depth: number;
}

/** Bounds a tree; the engine's own limits are 1,000 levels and 50,000 nodes. */
export const AST_DEPTH_MAX = 400;
export const AST_NODES_MAX = 20_000;

/** The text is not the printed form of a tree, or the tree is too large. */
export class AstError extends Error {
  override readonly name = "AstError";
}

interface Open {
  node: { kind: string; rest: string; children: AstNode[]; depth: number };
  missing: number;
}

const LINE = /^( *)([A-Za-z_:]+)(?: (.*?))??(?: \(children (\d+)\))?$/s;

/** @throws AstError when the text is not exactly one tree */
export function parseAst(text: string): AstNode {
  const lines = text.replace(/\n$/, "").split("\n");
  if (lines.length > AST_NODES_MAX) throw new AstError(`the statement has more than ${AST_NODES_MAX} nodes`);
  const path: Open[] = [];
  let root: AstNode | undefined;
  for (const line of lines) {
    const match = LINE.exec(line);
    if (match === null) throw new AstError(`the engine's description has a line that is not a node`);
    const depth = match[1]!.length;
    if (depth > AST_DEPTH_MAX) throw new AstError(`the statement is nested deeper than ${AST_DEPTH_MAX} levels`);
    while (path.length > 0 && path.at(-1)!.missing === 0) path.pop();
    const parent = path.at(-1);
    if (depth !== path.length || (parent === undefined && root !== undefined))
      throw new AstError("the engine's description is not one tree");
    const node = { kind: match[2]!, rest: withoutAlias(match[3] ?? ""), children: [] as AstNode[], depth };
    if (parent === undefined) root = node;
    else {
      parent.node.children.push(node);
      parent.missing -= 1;
    }
    path.push({ node, missing: Number(match[4] ?? 0) });
  }
  if (root === undefined || path.some((open) => open.missing > 0)) throw new AstError("the engine's description is not one tree");
  return root;
}

/** The first " (alias " begins the alias; a name that holds such a text itself is cut short, and a shorter name is not more. */
function withoutAlias(rest: string): string {
  if (rest.startsWith("(alias ")) return "";
  const at = rest.indexOf(" (alias ");
  return at < 0 ? rest : rest.slice(0, at);
}

/** Calls `visit` for every node, parents first. */
export function walkAst(node: AstNode, visit: (node: AstNode, parent: AstNode | undefined) => void, parent?: AstNode): void {
  visit(node, parent);
  for (const child of node.children) walkAst(child, visit, node);
}

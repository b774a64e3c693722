import { describe, expect, it } from "vitest";
import { AST_DEPTH_MAX, AST_NODES_MAX, AstError, parseAst, walkAst } from "./ast.ts";

const SELECT = `SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 2)
    Literal 'x\\ny (children 4)' (alias a)
    Function count (alias n) (children 1)
     ExpressionList
`;

describe("parseAst", () => {
  it("reads kinds, names and children", () => {
    const seen: string[] = [];
    walkAst(parseAst(SELECT), (node, parent) => seen.push(`${parent?.kind ?? ""}>${node.kind}:${node.rest}`));
    expect(seen).toEqual([
      ">SelectWithUnionQuery:",
      "SelectWithUnionQuery>ExpressionList:",
      "ExpressionList>SelectQuery:",
      "SelectQuery>ExpressionList:",
      "ExpressionList>Literal:'x\\ny (children 4)'",
      "ExpressionList>Function:count",
      "Function>ExpressionList:",
    ]);
  });

  it.each([
    ["Subquery (alias x) (children 1)\n A", "Subquery", ""],
    ["Function plus (children 1)\n ExpressionList", "Function", "plus"],
    ["TableIdentifier db.t (alias x y)", "TableIdentifier", "db.t"],
    ["ColumnsReplaceTransformer::Replacement (children 1)\n A", "ColumnsReplaceTransformer::Replacement", ""],
    ["InterpolateElement (column y)", "InterpolateElement", "(column y)"],
    ["Identifier ", "Identifier", ""],
  ])("reads %j", (text, kind, rest) => {
    expect(parseAst(text)).toMatchObject({ kind, rest });
  });

  it.each([
    ["nothing", ""],
    ["two roots", "A\nB"],
    ["a child too many", "A (children 1)\n B\n C"],
    ["a child too few", "A (children 2)\n B"],
    ["a child that was not announced", "A\n B"],
    ["a jump in depth", "A (children 1)\n  B"],
    ["an indented root", " A"],
    ["an alias with a line break", "A (children 1)\n Literal 1 (alias x\n   TableIdentifier logs)"],
    ["a name that announces children", "A (children 2)\n Identifier q (children 1)\n Identifier r"],
    ["a line that is no node", "A (children 1)\n 'x'"],
    ["an empty line", "A (children 1)\n\n B"],
    ["a tab as indentation", "A (children 1)\n\tB"],
    ["too deep", Array.from({ length: AST_DEPTH_MAX + 2 }, (_, depth) => `${" ".repeat(depth)}A (children 1)`).join("\n")],
    ["too many", `A (children ${AST_NODES_MAX})\n${" B\n".repeat(AST_NODES_MAX)}`],
  ])("refuses %s", (_what, text) => {
    expect(() => parseAst(text)).toThrow(AstError);
  });
});

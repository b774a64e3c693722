// The parts of docs/SQL.md that are made from the code; a test keeps the file equal.

import { querySettings } from "../limits.ts";
import { COMBINATORS, FUNCTIONS_BY_TOPIC, TABLE_FUNCTIONS } from "./lists.ts";

/** A section between `<!-- begin NAME -->` and `<!-- end NAME -->`. */
export const GENERATED: Readonly<Record<string, () => string>> = {
  limits: () =>
    [
      "| setting | default | unit | what |",
      "|---|---|---|---|",
      ...Object.values(querySettings).map((each) => `| \`${each.env}\` | ${each.fallback ?? ""} | ${each.unit} | ${each.why} |`),
    ].join("\n"),
  functions: () =>
    [
      ...Object.entries(FUNCTIONS_BY_TOPIC).map(([topic, names]) => `- **${topic}**: ${names.trim().split(/\s+/).map(code).join(" ")}`),
      `- **endings of aggregate functions**: ${COMBINATORS.map(code).join(" ")}`,
      `- **behind FROM**: ${[...TABLE_FUNCTIONS].map(code).join(" ")}`,
    ].join("\n"),
};

const code = (name: string): string => `\`${name}\``;

/** The text with its generated sections made anew. */
export function regenerate(text: string): string {
  return text.replace(/(<!-- begin (\w+) -->\n)[\s\S]*?(<!-- end \2 -->)/g, (whole, begin: string, name: string, end: string) => {
    const make = GENERATED[name];
    return make === undefined ? whole : `${begin}${make()}\n${end}`;
  });
}

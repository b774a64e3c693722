// Text of unknown origin on a terminal.
//
// Promises: nothing that was logged can move the cursor, colour or clear the screen, begin a line, turn the reading direction
// or hide; it is shown as an escape instead. Everything else is shown as it is.

// C0, DEL and C1; line and paragraph separators; marks that turn the reading direction; zero-width and tag characters; half pairs.
const HARMFUL =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]|\p{Surrogate}/gu;
const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
/** Joins the parts of one emoji or of an Indic or Persian cluster, and can do no harm there. */
const JOINERS = /(?<=[\p{L}\p{M}\p{Extended_Pictographic}\p{Emoji_Modifier}])[\u200c\u200d](?=[\p{L}\p{M}\p{Extended_Pictographic}])/gu;

const hex = (char: string, digits: number): string => char.codePointAt(0)!.toString(16).padStart(digits, "0");

function escaped(char: string): string {
  const code = char.codePointAt(0)!;
  return SHORT[char] ?? (code < 0x100 ? `\\x${hex(char, 2)}` : code < 0x10000 ? `\\u${hex(char, 4)}` : `\\u{${hex(char, 0)}}`);
}

/** `text` as one line that does nothing but be read. */
export function printable(text: string): string {
  if (!HARMFUL.test(text)) return text;
  HARMFUL.lastIndex = 0;
  const joined = new Set([...text.matchAll(JOINERS)].map((match) => match.index));
  return text.replace(HARMFUL, (char, at: number) => (joined.has(at) ? char : escaped(char)));
}

/** As printable, but lines may end: for messages of our own that hold text of others. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** JSON on one line, as harmless and with the same meaning: only its strings can hold such characters. */
export function harmlessJson(json: string): string {
  return json.replace(HARMFUL, (char) =>
    [...Array(char.length).keys()].map((i) => `\\u${char.charCodeAt(i).toString(16).padStart(4, "0")}`).join(""),
  );
}

/** A value as JSON on one line that is as harmless; numbers too large for JSON become text. */
export function jsonLine(value: unknown): string {
  return `${harmlessJson(JSON.stringify(value, (_, one: unknown) => (typeof one === "bigint" ? String(one) : one)))}\n`;
}

// Two cells wide in every terminal: East Asian wide and full-width ranges, and emoji. Source: Unicode TR 11 (W and F), in ranges.
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1b000}-\u{1b2ff}\u{1f200}-\u{1f2ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const ASCII_ONLY = /^[\x20-\x7e]*$/;
const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });

const widthOf = (grapheme: string): number =>
  WIDE.test(grapheme) || grapheme.includes("\ufe0f") ? 2 : /^[\p{M}\u200c\u200d]+$/u.test(grapheme) ? 0 : 1;

/** Cells of a terminal that printable text takes. */
export function cells(text: string): number {
  if (ASCII_ONLY.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes.segment(text)) width += widthOf(segment);
  return width;
}

/** The beginning of printable text that fits into `width` cells, with an ellipsis when something is cut. */
export function cut(text: string, width: number): string {
  if (cells(text) <= width) return text;
  if (width < 1) return "";
  let taken = "";
  let used = 0;
  for (const { segment } of graphemes.segment(text)) {
    used += widthOf(segment);
    if (used > width - 1) break;
    taken += segment;
  }
  return `${taken}…`;
}

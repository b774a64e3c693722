// JSON that a terminal may show.
//
// Promises: the same JSON, in ASCII where a terminal or a viewer of logs would obey instead of show: JSON itself escapes C0 only.

/** DEL, C1, separators of lines, marks that turn the reading direction or hide. In JSON they can only be inside a string. */
const HARMFUL = /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** @param json as JSON.stringify writes it */
export function harmless(json: string): string {
  return json.replace(HARMFUL, escaped);
}

// Renaming of fields by query parameters or message headers: `time_field=ts&message_field=msg,text`.

import { RelogError } from "../../base/errors.ts";
import type { Field } from "./fields.ts";
import { FIELDS, FieldMap } from "./fields.ts";

const MAPS_MAX = 16;
const NAMES_MAX = 16;
const NAME_CHARS_MAX = 256;
/** Around a name. Whatever else trim() takes away may be part of one. */
const BLANKS = /^ +| +$/g;

/** Parameter names, one a field. */
export const RENAME_PARAMETERS = FIELDS.map((field) => `${field}_field` as const);

/** Finds the field map that a call's parameters ask for; keeps the last ones, since producers repeat themselves. */
export function fieldMaps(): (parameter: (name: string) => string | undefined) => FieldMap {
  const maps = new Map<string, FieldMap>([["{}", new FieldMap()]]);
  return (parameter) => {
    const renamed: Partial<Record<Field, string[]>> = {};
    for (const field of FIELDS) {
      const given = parameter(`${field}_field`);
      if (given === undefined) continue;
      const names = given.split(",").map((name) => name.replace(BLANKS, ""));
      if (names.length > NAMES_MAX || names.some((name) => name === "" || name.length > NAME_CHARS_MAX)) {
        throw new RelogError(
          "bad_request",
          `${field}_field takes 1 to ${NAMES_MAX} names of at most ${NAME_CHARS_MAX} characters, comma separated`,
        );
      }
      renamed[field] = names;
    }
    const id = JSON.stringify(renamed);
    let map = maps.get(id);
    if (map === undefined) {
      map = new FieldMap(renamed);
      if (maps.size >= MAPS_MAX) maps.delete([...maps.keys()][1]!);
      maps.set(id, map);
    }
    return map;
  };
}

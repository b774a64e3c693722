// Every generated document: path from the top of the repository -> text.

import { queryDocument } from "../../cmd/parts/document.ts";
import { recordSchema, vectors } from "./event.ts";
import { errorsTable, settingsTable } from "./tables.ts";

export async function documents(): Promise<Map<string, string>> {
  return new Map([
    ["schemas/event/v1.json", recordSchema()],
    ...vectors(),
    ["schemas/http/openapi.json", `${JSON.stringify(queryDocument(), null, 1)}\n`],
    ["docs/ERRORS.md", errorsTable()],
    ["docs/SETTINGS.md", await settingsTable()],
  ]);
}

// Every generated document: path from the top of the repository -> text.

<<<<<<< HEAD
||||||| f61a51b
=======
>>>>>>> 602770927f71b266024b5d34988ebef376861ab8

import { queryDocument } from "../../cmd/parts/document.ts";
import { recordSchema, vectors } from "./event.ts";
import { errorsTable, settingsTable } from "./tables.ts";

export async function documents(): Promise<Map<string, string>> {
  return new Map([
    ["schemas/event/v1.json", recordSchema()],
    ...vectors(),
<<<<<<< HEAD
    ["schemas/http/openapi.json", `${JSON.stringify(accountsDocument(Object.values(USAGE_ENDPOINTS)), null, 1)}\n`],
||||||| f61a51b
    ["schemas/http/openapi.json", `${JSON.stringify(accountsDocument(), null, 1)}\n`],
=======
    ["schemas/http/openapi.json", `${JSON.stringify(withTail(accountsDocument()), null, 1)}\n`],
>>>>>>> 602770927f71b266024b5d34988ebef376861ab8
    ["docs/ERRORS.md", errorsTable()],
    ["docs/SETTINGS.md", await settingsTable()],
  ]);
}

// `npm run docs`: writes every generated document.

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { documents } from "./all.ts";

for (const [path, text] of await documents()) writeFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), text);

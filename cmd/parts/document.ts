// The OpenAPI document of the query service, from what each feature says of its endpoints.

import { accountsDocument } from "../../lib/accounts/document.ts";
import type { OpenApi } from "../../lib/base/openapi.ts";
import { withTail } from "../../lib/tail/document.ts";
import { USAGE_ENDPOINTS } from "../../lib/usage/endpoints.ts";

/** What /openapi.json serves, and schemas/http/openapi.json holds. */
export function queryDocument(): OpenApi {
  return withTail(accountsDocument(Object.values(USAGE_ENDPOINTS)));
}

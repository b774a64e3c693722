// The OpenAPI document of the accounts: what /openapi.json serves, and schemas/http/openapi.json holds.

import type { Endpoint } from "../base/endpoint.ts";
import type { OpenApi } from "../base/openapi.ts";
import { openApiDocument } from "../base/openapi.ts";
import { ENDPOINTS } from "./endpoints.ts";

const ABOUT =
  'Tenants, API keys, limits, usage and the audit log of relog. Send `Authorization: Bearer <key>` or `X-API-Key: <key>`. Errors are `{"error":{"code","message","help"}}`: decide on `code`. ' +
  "Sending and asking for logs (`/v1/ingest`, `/v1/query`, `/v1/receipts`) is described in README.md and docs/SQL.md.";

/** Made from the schemas that check the requests. @param more endpoints of other features of the same service */
export function accountsDocument(more: readonly Endpoint[] = []): OpenApi {
  return openApiDocument([...Object.values(ENDPOINTS), ...more], { title: "relog: accounts", version: "1", description: ABOUT });
}

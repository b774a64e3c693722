// Who is asking. The tenant of a request comes from its credential and from nowhere else.

import { RelogError } from "./errors.ts";

export const SCOPES = ["ingest", "query", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

export interface Principal {
  readonly tenant: string;
  readonly keyId: string;
  readonly scopes: readonly Scope[];
}

/** Finds whose credential this is; undefined when it is nobody's. */
export type Authenticate = (credential: string) => Promise<Principal | undefined> | Principal | undefined;

/** The credential of a request: `Authorization: Bearer <key>` or `X-API-Key: <key>`; undefined when there is none. */
export function credentialOf(header: (name: string) => string | undefined): string | undefined {
  const authorization = header("authorization");
  if (authorization !== undefined) {
    const match = /^Bearer +(\S+) *$/i.exec(authorization);
    if (match) return match[1];
  }
  return header("x-api-key");
}

/**
 * The principal behind a request's headers, if its credential has the scope.
 * @throws RelogError unauthenticated without a valid credential, forbidden without the scope
 */
export async function authorize(
  authenticate: Authenticate,
  header: (name: string) => string | undefined,
  scope: Scope,
): Promise<Principal> {
  const credential = credentialOf(header);
  if (credential === undefined) throw new RelogError("unauthenticated", "the request carries no API key");
  const principal = await authenticate(credential);
  if (principal === undefined) throw new RelogError("unauthenticated", "the API key is not known here");
  if (!principal.scopes.includes(scope)) throw new RelogError("forbidden", `the API key lacks the scope "${scope}"`);
  return principal;
}

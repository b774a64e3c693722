// JSON web tokens as NATS signs them: algorithm `ed25519-nkey`, the issuer is the public key that signed.
//
// Promises: `readJwt` gives only claims that their issuer signed; anything malformed is undefined, never an exception.
// Source: github.com/nats-io/jwt v2.

import { randomUUID } from "node:crypto";
import type { Kind, Signer } from "./nkey.ts";
import { isSignedBy } from "./nkey.ts";

const ALGORITHM = "ed25519-nkey";
const HEADER = Buffer.from(JSON.stringify({ typ: "JWT", alg: ALGORITHM })).toString("base64url");
/** A request with a long client name and TLS certificates stays below it. */
const JWT_CHARS_MAX = 256 * 1024;

export type Claims = Readonly<Record<string, unknown>>;

/** Signs claims; `iss`, `iat` and `jti` are added. @param nowMs milliseconds since the epoch */
export function writeJwt(signer: Signer, claims: Claims, nowMs: number): string {
  const all = { ...claims, iss: signer.publicKey, iat: Math.floor(nowMs / 1_000), jti: randomUUID() };
  const signed = `${HEADER}.${Buffer.from(JSON.stringify(all)).toString("base64url")}`;
  return `${signed}.${Buffer.from(signer.sign(Buffer.from(signed))).toString("base64url")}`;
}

/** The claims, when an issuer of this kind signed them. */
export function readJwt(token: string, issuer: Kind): Claims | undefined {
  if (token.length > JWT_CHARS_MAX) return undefined;
  const [head, body, signature, ...more] = token.split(".");
  if (head === undefined || body === undefined || signature === undefined || more.length > 0) return undefined;
  const [header, claims] = [objectIn(head), objectIn(body)];
  if (header?.alg !== ALGORITHM || typeof claims?.iss !== "string") return undefined;
  const valid = isSignedBy(claims.iss, issuer, Buffer.from(`${head}.${body}`), Buffer.from(signature, "base64url"));
  return valid ? claims : undefined;
}

function objectIn(part: string): Claims | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Claims) : undefined;
  } catch {
    return undefined;
  }
}

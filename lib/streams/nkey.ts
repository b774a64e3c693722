// Keys of NATS ("nkeys"): Ed25519 in base 32 with a prefix byte and a checksum, as nats-server and `nsc` write them.
//
// Promises: what is not a whole key of its kind is nobody's, never an exception. Source: github.com/nats-io/nkeys, README.md
// and strkey.go.

import type { KeyObject } from "node:crypto";
import { createPrivateKey, createPublicKey, sign as edSign, verify as edVerify, randomBytes } from "node:crypto";

/** First byte of a public key; chosen so that the first letter says the kind. */
export const KINDS = { account: 0, server: 13 << 3, user: 20 << 3 } as const;
export type Kind = keyof typeof KINDS;
const SEED = 18 << 3;
const RAW_BYTES = 32;
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/** DER of an Ed25519 private key up to its 32 bytes. Source: RFC 8410, section 7. */
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");

/** CRC-16 as XMODEM has it: polynomial 0x1021, from 0. */
function crc16(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  return crc;
}

function encode(bytes: Uint8Array): string {
  const sum = crc16(bytes);
  let [text, bits, value] = ["", 0, 0];
  for (const byte of [...bytes, sum & 0xff, sum >> 8]) {
    value = ((value << 8) | byte) & 0xfff;
    for (bits += 8; bits >= 5; bits -= 5) text += ALPHABET[(value >> (bits - 5)) & 31];
  }
  return bits === 0 ? text : text + ALPHABET[(value << (5 - bits)) & 31];
}

/** The bytes without their checksum; undefined when the text is malformed. */
function decode(text: string): Uint8Array | undefined {
  const bytes: number[] = [];
  let [bits, value] = [0, 0];
  for (const letter of text) {
    const digit = ALPHABET.indexOf(letter);
    if (digit < 0) return undefined;
    value = ((value << 5) | digit) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((value >> bits) & 0xff);
    }
  }
  const body = Uint8Array.from(bytes.slice(0, -2));
  // Encoded again it must be the same text: bits left over are no second spelling.
  return bytes.length > 2 && encode(body) === text ? body : undefined;
}

/** Raw bytes of a public key of this kind; undefined when the text is none. */
function rawPublic(text: string, kind: Kind): Uint8Array | undefined {
  const bytes = decode(text);
  return bytes?.length === RAW_BYTES + 1 && bytes[0] === KINDS[kind] ? bytes.subarray(1) : undefined;
}

/** Whether the text is a public key of this kind. */
export function isPublicKey(text: string, kind: Kind): boolean {
  return rawPublic(text, kind) !== undefined;
}

/** Whether the holder of a public key signed these bytes. False as well when the key or the signature is malformed. */
export function isSignedBy(publicKey: string, kind: Kind, bytes: Uint8Array, signature: Uint8Array): boolean {
  const raw = rawPublic(publicKey, kind);
  if (raw === undefined || signature.length !== 64) return false;
  const jwk = { kty: "OKP", crv: "Ed25519", x: Buffer.from(raw).toString("base64url") };
  return edVerify(null, bytes, createPublicKey({ key: jwk, format: "jwk" }), signature);
}

/** A key that can sign. */
export interface Signer {
  readonly publicKey: string;
  sign(bytes: Uint8Array): Uint8Array;
}

/** The account behind a seed `SA...`; undefined when the text is none. */
export function accountSigner(seed: string): Signer | undefined {
  const bytes = decode(seed);
  const [first, second] = [SEED | (KINDS.account >> 5), (KINDS.account & 31) << 3];
  if (bytes?.length !== RAW_BYTES + 2 || bytes[0] !== first || bytes[1] !== second) return undefined;
  const key = createPrivateKey({ key: Buffer.concat([PKCS8, bytes.subarray(2)]), format: "der", type: "pkcs8" });
  return { publicKey: encode(Uint8Array.of(KINDS.account, ...publicBytes(key))), sign: (input) => edSign(null, input, key) };
}

function publicBytes(key: KeyObject): Uint8Array {
  return Buffer.from(createPublicKey(key).export({ format: "jwk" }).x!, "base64url");
}

/** The seed of a new account. @param random a cryptographic source */
export function newAccountSeed(random: (bytes: number) => Uint8Array = randomBytes): string {
  return encode(Uint8Array.of(SEED | (KINDS.account >> 5), (KINDS.account & 31) << 3, ...random(RAW_BYTES)));
}

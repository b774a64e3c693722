// Ids, and which shard they fall on.

import { randomFillSync } from "node:crypto";
import { crc32 } from "node:zlib";
import { monotonicFactory } from "ulid";

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM_BYTES = 4_096;
const randomness = Buffer.allocUnsafe(RANDOM_BYTES);
let randomAt = RANDOM_BYTES;

/** A number in [0, 1) from a cryptographic source that is asked for many bytes at once. */
function random(): number {
  if (randomAt === RANDOM_BYTES) {
    randomFillSync(randomness);
    randomAt = 0;
  }
  return randomness[randomAt++]! / 256;
}

const nextUlid = monotonicFactory(random);

/** A batch's id: a ULID, increasing within this process. @param nowMs milliseconds since the epoch */
export function newBatchId(nowMs: number): string {
  return nextUlid(nowMs);
}

/** A batch id that falls on the given shard: ids are made until one does, so that no two calls ever get the same. */
export function newBatchIdOn(shard: number, shards: number, nowMs: number): string {
  for (let tries = 0; tries < shards * TRIES_PER_SHARD; tries++) {
    const id = nextUlid(nowMs);
    if (shardOf(id, shards) === shard) return id;
  }
  throw new Error(`no id falls on shard ${shard} of ${shards}`);
}

/** Far more than chance ever needs. */
const TRIES_PER_SHARD = 1_000;

/** The shard of a batch id (or of an idempotency key): CRC-32 of its text modulo the number of shards. */
export function shardOf(id: string, shards: number): number {
  return crc32(id) % shards;
}

/** Milliseconds since the epoch at which a ULID was made. Source: the ULID specification, 48 bits in Crockford's base 32. */
export function timeOfBatchId(id: string): number {
  let time = 0;
  for (const char of id.slice(0, 10)) time = time * 32 + ALPHABET.indexOf(char);
  return time;
}

const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

export function isBatchId(text: string): boolean {
  return ULID.test(text);
}

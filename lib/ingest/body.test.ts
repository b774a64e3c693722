// Reading bodies: encodings, every bound, and that nothing stays accounted for or shared afterwards.

import { randomBytes } from "node:crypto";
import { deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { expect, it } from "vitest";
import { SharedBound } from "../base/share.ts";
import { readBody } from "./body.ts";

const SETTINGS = { bodyBytesMax: 200_000, decodedBytesMax: 3_000_000, ratioMax: 20 };
const bound = (max: number): SharedBound => new SharedBound(max, 100, "bytes of bodies are in flight", "RELOG_BYTES_IN_FLIGHT_MAX");
const TEXT = Buffer.from("grüße 世界 ".repeat(2000));

async function* chunked(bytes: Uint8Array, size = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const read = (bytes: Uint8Array, encoding?: string, length: number | undefined = bytes.length, inFlight = bound(10_000_000)) =>
  readBody(chunked(bytes), length, encoding, SETTINGS, inFlight.of("acme"));

it.each([
  ["identity", TEXT],
  ["", TEXT],
  ["gzip", gzipSync(TEXT)],
  [" GZIP ", gzipSync(TEXT)],
  ["x-gzip", gzipSync(TEXT)],
  ["deflate", deflateSync(TEXT)],
  ["zstd", zstdCompressSync(TEXT)],
  ["gzip", Buffer.concat([gzipSync(TEXT.subarray(0, 500)), gzipSync(TEXT.subarray(500))])],
])("%s is read, with and without a length", async (encoding, sent) => {
  for (const length of [sent.length, undefined]) {
    const inFlight = bound(10_000_000);
    const body = await readBody(chunked(sent), length, encoding, SETTINGS, inFlight.of("acme"));
    expect(body.bytes.equals(TEXT)).toBe(true);
    expect(inFlight.used).toBeGreaterThanOrEqual(Math.max(TEXT.length, sent.length));
    body.release();
    body.release();
    expect(inFlight.used).toBe(0);
  }
});

it("no encoding and no bytes are an empty body", async () => {
  expect((await read(Buffer.alloc(0))).bytes.length).toBe(0);
});

const BOMB = Buffer.alloc(2_900_000);
it.each<[string, Buffer, string | undefined, number | undefined, string, string]>([
  ["an announced length over the bound", Buffer.alloc(1), undefined, 200_001, "body_too_large", "RELOG_BODY_BYTES_MAX"],
  ["a body over the bound", Buffer.alloc(200_001), undefined, undefined, "body_too_large", "RELOG_BODY_BYTES_MAX"],
  ["a bomb", zstdCompressSync(BOMB), "zstd", undefined, "compression_ratio", "RELOG_BODY_RATIO_MAX"],
  [
    "much more than the bound",
    gzipSync(Buffer.concat([randomBytes(160_000), Buffer.alloc(3_000_000)])),
    "gzip",
    undefined,
    "body_too_large",
    "RELOG_BODY_DECODED_BYTES_MAX",
  ],
  ["no gzip", TEXT, "gzip", undefined, "bad_encoding", "gzip"],
  ["half a gzip", gzipSync(TEXT).subarray(0, 50), "gzip", undefined, "bad_encoding", "gzip"],
  ["no zstd", TEXT, "zstd", undefined, "bad_encoding", "zstd"],
  ["an unknown encoding", TEXT, "br", undefined, "unsupported_media_type", '"br"'],
  ["two encodings", TEXT, "gzip, gzip", undefined, "unsupported_media_type", "gzip"],
  ["a name that every object has", TEXT, "constructor", undefined, "unsupported_media_type", "constructor"],
])("%s is refused, and nothing stays in flight", async (_, bytes, encoding, length, code, words) => {
  const inFlight = bound(10_000_000);
  const refused = readBody(chunked(bytes), length, encoding, SETTINGS, inFlight.of("acme"));
  await expect(refused).rejects.toMatchObject({ code, message: expect.stringContaining(words) });
  expect(inFlight.used).toBe(0);
});

it("bodies over the process's bound are refused, whether announced, sent or unpacked", async () => {
  const inFlight = bound(30_000);
  const held = await read(Buffer.alloc(20_000), undefined, 20_000, inFlight);
  const over = { code: "too_many_bytes", retryAfterS: 1, message: expect.stringContaining("RELOG_BYTES_IN_FLIGHT_MAX") };
  await expect(read(Buffer.alloc(10_001), undefined, 10_001, inFlight)).rejects.toMatchObject(over);
  await expect(readBody(chunked(Buffer.alloc(10_001)), undefined, undefined, SETTINGS, inFlight.of("acme"))).rejects.toMatchObject(over);
  await expect(read(gzipSync(Buffer.alloc(10_001)), "gzip", undefined, inFlight)).rejects.toMatchObject(over);
  expect(inFlight.used).toBe(20_000);
  held.release();
  expect(inFlight.used).toBe(0);
});

it("a connection that breaks leaves nothing behind", async () => {
  const inFlight = bound(30_000);
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield Buffer.alloc(5000);
    throw new Error("aborted");
  }
  await expect(readBody(broken(), 9000, undefined, SETTINGS, inFlight.of("acme"))).rejects.toThrow();
  expect(inFlight.used).toBe(0);
});

it("bodies held at once never share memory, also after some were refused", async () => {
  const inFlight = bound(100_000_000);
  for (let round = 0; round < 30; round++) {
    const bodies = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => {
        const bytes = Buffer.alloc(1000 + ((round * 7919 + i * 13_007) % 190_000), i + 1);
        if (i % 5 === 0) return read(bytes, "zstd", bytes.length, inFlight);
        if (i % 3 === 0) return read(zstdCompressSync(bytes.subarray(0, 90_000)), "zstd", undefined, inFlight);
        return read(bytes, undefined, i % 2 === 0 ? bytes.length : undefined, inFlight);
      }),
    );
    for (const [i, body] of bodies.entries()) {
      expect(body.status).toBe(i % 5 === 0 ? "rejected" : "fulfilled");
      if (body.status === "fulfilled") expect(body.value.bytes.every((byte) => byte === i + 1)).toBe(true);
    }
    for (const body of bodies) if (body.status === "fulfilled") body.value.release();
    expect(inFlight.used).toBe(0);
  }
});

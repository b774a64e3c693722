// Reading a request's body within bounds.
//
// Promises: never holds more than the bounds allow, compressed or not; a body over a bound is refused with the bound's
// name, value and setting; what is not what its Content-Encoding says is a 400.

import { promisify } from "node:util";
import { gunzip, inflate, zstdDecompress } from "node:zlib";
import type { Values } from "../base/config.ts";
import { bytes, integer } from "../base/config.ts";
import { RelogError } from "../base/errors.ts";
import type { Taker } from "../base/share.ts";
import { frameContentSize } from "../event/frame.ts";
import { ByteWriter } from "../event/native.ts";

export const bodySettings = {
  bodyBytesMax: bytes("RELOG_BODY_BYTES_MAX", "32MiB", "one request body as sent"),
  decodedBytesMax: bytes(
    "RELOG_BODY_DECODED_BYTES_MAX",
    "64MiB",
    "one request body after decompression; OTLP receivers commonly allow as much",
  ),
  ratioMax: integer(
    "RELOG_BODY_RATIO_MAX",
    "200",
    [1, 100_000],
    "times",
    "how much larger a body may become; logs reach 5 to 50, bombs 1000",
  ),
};

const ENCODINGS = { gzip: promisify(gunzip), "x-gzip": promisify(gunzip), deflate: promisify(inflate), zstd: promisify(zstdDecompress) };
type Encoding = keyof typeof ENCODINGS;
/** A tiny body may become this large whatever its ratio. */
const RATIO_FREE_BYTES = 1024 * 1024;

function tooLarge(what: string, limit: number, setting: string): RelogError {
  return new RelogError("body_too_large", `the body is larger than ${what}: ${limit} bytes (${setting})`);
}

/** A body's bytes, valid until `release`, with the share of the bytes in flight that they hold. */
export interface Body {
  readonly bytes: Buffer;
  release(): void;
}

/**
 * Reads and decompresses a body.
 * @param contentLength the announced length, if any
 * @param inFlight the tenant's side of the process's bound on bytes of bodies; over it is `too_many_bytes`
 * @throws RelogError body_too_large, compression_ratio, bad_encoding, unsupported_media_type, too_many_bytes
 */
export async function readBody(
  chunks: AsyncIterable<Uint8Array>,
  contentLength: number | undefined,
  contentEncoding: string | undefined,
  settings: Values<typeof bodySettings>,
  inFlight: Taker,
): Promise<Body> {
  const encoding = encodingOf(contentEncoding);
  if (contentLength !== undefined && contentLength > settings.bodyBytesMax)
    throw tooLarge("allowed", settings.bodyBytesMax, "RELOG_BODY_BYTES_MAX");
  const buffer = new ByteWriter();
  const share = new Share(inFlight);
  const release = (): void => {
    buffer.release();
    share.giveBack();
  };
  try {
    // An announced length is not counted before it arrives: a sender that never delivers must not hold a share.
    buffer.reserve(Math.min(contentLength ?? 0, EAGER_BYTES_MAX));
    for await (const chunk of interruptible(chunks)) {
      const received = buffer.length + chunk.length;
      if (received > settings.bodyBytesMax) throw tooLarge("allowed", settings.bodyBytesMax, "RELOG_BODY_BYTES_MAX");
      share.growTo(received);
      buffer.raw(chunk);
    }
    if (encoding === undefined) return { bytes: buffer.view(), release };
    const decoded = await decode(buffer.view(), encoding, settings, share);
    share.growTo(decoded.length);
    return { bytes: decoded, release };
  } catch (error) {
    release();
    throw error;
  }
}

const EAGER_BYTES_MAX = 2 ** 20;

/** One body's part of the bytes in flight. */
class Share {
  readonly #bound: Taker;
  #taken = 0;

  constructor(bound: Taker) {
    this.#bound = bound;
  }

  /** @throws RelogError too_many_bytes */
  growTo(bytes: number): void {
    const more = bytes - this.#taken;
    if (more <= 0) return;
    const why = this.#bound.take(more, this.#taken);
    if (why !== undefined) throw new RelogError("too_many_bytes", why, { retryAfterS: 1 });
    this.#taken += more;
  }

  giveBack(): void {
    this.#bound.give(this.#taken);
    this.#taken = 0;
  }
}

/** The chunks, with a connection that ends early as what it is: nobody's defect. */
async function* interruptible(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (cause) {
    throw new RelogError("bad_request", "the connection ended before the body did", { cause });
  }
}

function encodingOf(header: string | undefined): Encoding | undefined {
  const name = (header ?? "identity").trim().toLowerCase();
  if (name === "identity" || name === "") return undefined;
  if (Object.hasOwn(ENCODINGS, name)) return name as Encoding;
  throw new RelogError(
    "unsupported_media_type",
    `Content-Encoding "${name.slice(0, 40)}" is not known; use identity, gzip, zstd or deflate`,
  );
}

/**
 * Decompresses within what `share` can get: first as much as the body says it will need, and when that is not enough
 * (the saying is the sender's), once more with all that is allowed.
 */
async function decode(sent: Buffer, encoding: Encoding, settings: Values<typeof bodySettings>, share: Share): Promise<Buffer> {
  const byRatio = Math.max(RATIO_FREE_BYTES, sent.length * settings.ratioMax);
  const limit = Math.min(settings.decodedBytesMax, byRatio);
  const said = Math.min(limit, Math.max(RATIO_FREE_BYTES, saidSize(sent, encoding) ?? sent.length * LIKELY_RATIO));
  for (const bound of said < limit ? [said, limit] : [limit]) {
    share.growTo(bound);
    try {
      return await ENCODINGS[encoding](sent, { maxOutputLength: bound });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ERR_BUFFER_TOO_LARGE") {
        throw new RelogError("bad_encoding", `the body is not valid ${encoding}`, { cause: error });
      }
    }
  }
  if (limit === settings.decodedBytesMax) throw tooLarge("allowed after decompression", limit, "RELOG_BODY_DECODED_BYTES_MAX");
  const text = `the body grows more than ${settings.ratioMax} times when decompressed (RELOG_BODY_RATIO_MAX)`;
  throw new RelogError("compression_ratio", text);
}

const LIKELY_RATIO = 10;

/** The size that a compressed body claims to have: zstd's frame head, gzip's last four bytes (RFC 1952); undefined when it makes no claim. */
function saidSize(sent: Buffer, encoding: Encoding): number | undefined {
  if (encoding === "zstd") return frameContentSize(sent);
  return encoding === "deflate" || sent.length < 18 ? undefined : sent.readUInt32LE(sent.length - 4);
}

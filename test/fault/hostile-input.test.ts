// Fault 14: bodies that no producer should send. Each is refused by name, and the neighbours do not notice.

import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { expect } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import type { Rig } from "./kit.ts";
import { faultTest, rssBytes, scaled } from "./kit.ts";

const MIB = 2 ** 20;
const zeros = Buffer.alloc(100 * MIB);

interface Case {
  readonly name: string;
  readonly body: Buffer;
  readonly headers?: Record<string, string>;
  readonly status: number;
  readonly code: string;
  /** What the message must name: the bound's value and setting. */
  readonly says?: RegExp;
}

const CASES: readonly Case[] = [
  {
    name: "too large",
    body: Buffer.alloc(3 * MIB, "x"),
    status: 413,
    code: "body_too_large",
    says: /2097152 bytes \(RELOG_BODY_BYTES_MAX\)/,
  },
  {
    name: "gzip bomb",
    body: gzipSync(zeros.subarray(0, 20 * MIB)),
    headers: { "content-encoding": "gzip" },
    status: 413,
    code: "compression_ratio",
    says: /200 times.*RELOG_BODY_RATIO_MAX/,
  },
  {
    name: "zstd bomb",
    body: zstdCompressSync(zeros),
    headers: { "content-encoding": "zstd" },
    status: 413,
    code: "compression_ratio",
    says: /RELOG_BODY_RATIO_MAX/,
  },
  {
    name: "large after decompression",
    // Some noise a line keeps it below the bound on the ratio.
    body: gzipSync(Array.from({ length: 160 }, () => `{"m":"${randomBytes(400).toString("hex")}${"x".repeat(64_000)}"}\n`).join("")),
    headers: { "content-encoding": "gzip" },
    status: 413,
    code: "body_too_large",
    says: /8388608 bytes \(RELOG_BODY_DECODED_BYTES_MAX\)/,
  },
  { name: "not gzip", body: Buffer.from("{}"), headers: { "content-encoding": "gzip" }, status: 400, code: "bad_encoding" },
  {
    name: "gzip cut short",
    body: gzipSync(Buffer.from('{"a":1}')).subarray(0, 20),
    headers: { "content-encoding": "gzip" },
    status: 400,
    code: "bad_encoding",
  },
  {
    name: "deep object",
    body: Buffer.from(`${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`),
    status: 400,
    code: "all_rejected",
    says: /RELOG_RECORD_DEPTH_MAX/,
  },
  {
    name: "deep array in a record",
    body: Buffer.from(`{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}`),
    status: 400,
    code: "all_rejected",
    says: /RELOG_RECORD_DEPTH_MAX/,
  },
  { name: "deep array body", body: Buffer.from("[".repeat(500_000)), status: 400, code: "all_rejected" },
  {
    name: "one record too large",
    body: Buffer.from(`{"m":"${"x".repeat(300 * 1024)}"}`),
    status: 400,
    code: "all_rejected",
    says: /RELOG_RECORD_BYTES_MAX allows 262144/,
  },
  {
    name: "many attributes",
    body: Buffer.from(`{${Array.from({ length: 2_600 }, (_, i) => `"k${i}":1`).join(",")}}`),
    status: 400,
    code: "all_rejected",
    says: /RELOG_RECORD_ATTRIBUTES_MAX allows 256/,
  },
  {
    name: "long key",
    body: Buffer.from(`{"${"k".repeat(600)}":1}`),
    status: 400,
    code: "all_rejected",
    says: /RELOG_RECORD_KEY_BYTES_MAX allows 512/,
  },
  {
    name: "invalid UTF-8",
    body: Buffer.concat([Buffer.from('{"m":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]),
    status: 400,
    code: "all_rejected",
    says: /UTF-8/,
  },
  {
    name: "overlong UTF-8",
    body: Buffer.concat([Buffer.from('{"m":"'), Buffer.from([0xc0, 0xaf]), Buffer.from('"}')]),
    status: 400,
    code: "all_rejected",
  },
  { name: "only NUL bytes", body: Buffer.alloc(1000), status: 400, code: "all_rejected" },
  { name: "binary", body: Buffer.from([0x1f, 0x8b, 0, 0xff, 0xfe, 10, 13]), status: 400, code: "all_rejected" },
];

const LIMITS = { RELOG_BODY_BYTES_MAX: "2MiB", RELOG_BODY_DECODED_BYTES_MAX: "8MiB", RELOG_BYTES_IN_FLIGHT_MAX: "32MiB" };

faultTest("hostile bodies beside honest producers", async (rig) => {
  const gateway = await rig.gateway(LIMITS);
  await rig.projector();
  const stop = new AbortController();
  const producing = rig.produce(gateway.url, { batches: 1e9, concurrency: 2, signal: stop.signal });
  let rssMax = 0;
  for (let round = 0; round < scaled(2, 20); round++) {
    await Promise.all(
      CASES.map(async ({ name, body, headers, status, code, says }) => {
        const answer = await fetch(`${gateway.url}/v1/ingest`, {
          method: "POST",
          headers: { authorization: `Bearer ${rig.key}`, ...headers },
          body,
        });
        const text = await answer.text();
        // Under so many at once a 429 is an answer too, and names its bound.
        if (answer.status === 429) return expect(text, name).toContain("RELOG_BYTES_IN_FLIGHT_MAX");
        expect([answer.status, JSON.parse(text).error?.code], `${name}: ${text.slice(0, 300)}`).toEqual([status, code]);
        if (says !== undefined) expect(text, name).toMatch(says);
      }),
    );
    rssMax = Math.max(rssMax, rssBytes(gateway.pid));
  }
  stop.abort();
  await producing;
  expect(rssMax).toBeLessThan(300 * MIB);
  expect(rig.ledger.of("refused")).toEqual([]);
  await rig.assertInvariants();
});

faultTest("a bad record between good ones rejects itself alone", async (rig) => {
  const gateway = await rig.gateway();
  await rig.projector();
  const answer = await fetch(`${gateway.url}/v1/ingest`, {
    method: "POST",
    headers: { authorization: `Bearer ${rig.key}` },
    body: Buffer.concat([
      Buffer.from('{"m":"one","n":"a\\u0000b"}\n{"m":"'),
      Buffer.from([0xff]),
      Buffer.from(`"}\n{"m":"raw \0 nul"}\n{"m":${"[".repeat(50)}}\n{"m":"five"}\n`),
    ]),
  });
  expect(answer.status).toBe(200);
  const receipt = (await answer.json()) as { id: string; accepted: number; errors: { line: number; code: string }[] };
  expect(receipt).toMatchObject({
    accepted: 3,
    rejected: 2,
    errors: [
      { line: 2, code: "invalid_utf8" },
      { line: 4, code: "too_deep" },
    ],
  });
  await rig.caughtUp();
  expect(
    await rig.sql(`SELECT line, attributes['m'], hex(attributes['n']) FROM relog_g1.logs WHERE batch = '${receipt.id}' ORDER BY line`),
  ).toEqual([
    ["0", "one", "610062"],
    ["1", "raw \\0 nul", ""],
    ["2", "five", ""],
  ]);
});

/** Speaks to the gateway by hand. Resolves with what it answered when the connection ends. */
async function byHand(
  url: string,
  write: (send: (text: string | Buffer) => void, end: () => void, reset: () => void) => Promise<void> | void,
): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let answer = "";
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()));
  socket.on("data", (chunk) => {
    answer += chunk;
    if (answer.includes("\r\n\r\n")) socket.end();
  });
  socket.on("error", () => undefined);
  await new Promise((resolve) => socket.on("connect", resolve));
  socket.setNoDelay(true);
  await write(
    (text) => void socket.write(text),
    () => void socket.end(),
    () => void socket.resetAndDestroy(),
  );
  await closed;
  return answer;
}

const head = (rig: Rig, ...more: string[]): string =>
  ["POST /v1/ingest HTTP/1.1", "Host: x", `Authorization: Bearer ${rig.key}`, ...more, "", ""].join("\r\n");

faultTest("bodies in single bytes, cut short, and never sent", async (rig) => {
  const gateway = await rig.gateway({ ...LIMITS, RELOG_BYTES_IN_FLIGHT_MAX: "4MiB", RELOG_BODY_BYTES_MAX: "1MiB" });
  await rig.projector();
  const whole = rig.batch(3, 0, 5);
  const call = rig.ledger.open(undefined, whole.markers);
  const answer = await byHand(gateway.url, async (send) => {
    send(head(rig, "Transfer-Encoding: chunked"));
    for (const byte of whole.body) {
      send(`1\r\n${byte}\r\n`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    send("0\r\n\r\n");
  });
  expect(answer).toMatch(/^HTTP\/1.1 200/);
  call.outcome = "acked";
  call.receipt = JSON.parse(/\{.*\}/.exec(answer)![0]);

  // Announced and not sent: nothing of it may be stored, and the bytes it reserved must come back.
  for (let i = 0; i < 12; i++) {
    const part = rig.batch(3, 0, 5);
    rig.ledger.open(undefined, part.markers).outcome = "refused";
    rig.ledger.calls.at(-1)!.answers.push("connection closed");
    await byHand(gateway.url, (send, end, reset) => {
      send(head(rig, i % 2 ? "Content-Length: 900000" : "Transfer-Encoding: chunked"));
      send(i % 2 ? part.body : `${Buffer.byteLength(part.body).toString(16)}\r\n${part.body}\r\n`);
      setTimeout(i % 3 ? reset : end, 30);
    });
  }
  await waitFor("the reserved bytes to come back", async () => {
    const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
    return /^relog_ingest_bytes_in_flight\{[^}]*\} 0$/m.test(metrics) ? true : undefined;
  });
  await rig.produce(gateway.url, { batches: 10 });
  await rig.assertInvariants();
});

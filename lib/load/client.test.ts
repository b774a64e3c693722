import type { RequestListener } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { quantile, sendAll } from "./client.ts";

async function serving<T>(listener: RequestListener, use: (url: string) => Promise<T>): Promise<T> {
  const server = createServer((request, response) => {
    request.resume().on("end", () => listener(request, response));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const BODIES = Array.from({ length: 10 }, (_, i) => Buffer.from(String(i)));

test("every body is sent once and acknowledged", async () => {
  let requests = 0;
  const count: RequestListener = (_, response) => {
    requests++;
    response.end("{}");
  };
  const result = await serving(count, (url) => sendAll(BODIES, { url, headers: {}, connections: 3 }));
  expect(requests).toBe(10);
  expect(result.latenciesMs).toHaveLength(10);
  expect(result.refusals).toBe(0);
});

test("a refusal is tried again after Retry-After and counted", async () => {
  let requests = 0;
  const refuseFirst: RequestListener = (_, response) => {
    if (requests++ === 0) response.writeHead(503, { "Retry-After": "0" });
    response.end();
  };
  const result = await serving(refuseFirst, (url) => sendAll(BODIES, { url, headers: {}, connections: 1 }));
  expect(requests).toBe(11);
  expect(result.refusals).toBe(1);
});

test("anything else ends the run with the answer's text", async () => {
  const refuse: RequestListener = (_, response) => response.writeHead(400).end("no good");
  const sent = serving(refuse, (url) => sendAll(BODIES, { url, headers: {}, connections: 2 }));
  await expect(sent).rejects.toThrow("answered 400: no good");
});

test("with a rate, latency counts from the schedule: a stall is not hidden", async () => {
  let requests = 0;
  const stallFirst: RequestListener = (_, response) => {
    setTimeout(() => response.end(), requests++ === 0 ? 200 : 0);
  };
  const result = await serving(stallFirst, (url) => sendAll(BODIES.slice(0, 3), { url, headers: {}, connections: 1, bodiesPerS: 100 }));
  expect(result.latenciesMs[0]).toBeGreaterThan(190);
  expect(result.latenciesMs[1]).toBeGreaterThan(170);
});

test.each([
  [[3, 1, 2], 0.5, 2],
  [[1, 2, 3, 4], 0.5, 2],
  [[1, 2, 3, 4], 0.99, 4],
  [[7], 0.99, 7],
  [[], 0.5, Number.NaN],
])("quantile of %j at %d is %d", (values, share, expected) => expect(quantile(values, share)).toBe(expected));

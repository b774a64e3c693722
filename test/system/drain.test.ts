// SIGTERM under load: every call that a gateway has begun is answered, and it leaves by itself.

import { expect, it } from "vitest";
import { waitFor } from "../../lib/base/loop.ts";
import { startService } from "../../lib/devstack/service.ts";
import { startStack } from "../../lib/devstack/stack.ts";

const SENDERS = 8;
const BODY = Array.from({ length: 500 }, (_, i) => JSON.stringify({ message: `line ${i}`, n: i })).join("\n");

it("answers what it has begun, over connections that are kept alive", async () => {
  await using stack = await startStack({ env: process.env, clickhouse: false });
  await using gateway = await startService("gateway", stack, {});
  const statuses: number[] = [];
  const headers = { authorization: `Bearer ${stack.serviceEnv().RELOG_KEY}` };

  async function send(): Promise<void> {
    for (;;) {
      let answer: Response;
      try {
        answer = await fetch(`${gateway.url}/v1/ingest`, { method: "POST", headers, body: BODY });
      } catch {
        // The door is closed: nothing was begun, or the connection was idle when it was closed.
        return;
      }
      statuses.push(answer.status);
      await answer.arrayBuffer();
    }
  }

  const senders = Array.from({ length: SENDERS }, send);
  await waitFor("some answers", () => (statuses.length > SENDERS * 4 ? true : undefined));
  gateway.child.kill("SIGTERM");
  await Promise.all(senders);
  expect(new Set(statuses)).toEqual(new Set([200]));
  const { code, signal } = await gateway.child.exited;
  expect([code, signal]).toEqual([0, null]);
});

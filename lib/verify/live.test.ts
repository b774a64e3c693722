// Verification while a real gateway and projector are at work: no difference that is none, at any moment; and a real one is found.

import { connect } from "nats";
import { expect, it } from "vitest";
import { DAY_MS } from "../base/clock.ts";
import { waitFor } from "../base/loop.ts";
import { startService } from "../devstack/service.ts";
import { startStack } from "../devstack/stack.ts";
import { openClickHouse } from "../store/client.ts";
import { comparedTable } from "../store/compare.ts";
import { register } from "../streams/cas.ts";
import { liveLog, walkLetters } from "../streams/walk.ts";
import type { Verification, VerifyPorts } from "./ports.ts";
import { verifyGeneration } from "./verify.ts";

const ROUNDS = 4;
const LINES = 100;

/** Lines of one call; their times lie on several days now and then. */
function body(call: number): string {
  const lines = Array.from({ length: LINES }, (_, i) => {
    const ago = call % 10 === 0 ? (i % 3) * DAY_MS : 0;
    const timestamp = new Date(Date.now() - ago).toISOString();
    return JSON.stringify({ timestamp, level: "info", service: `s${i % 3}`, message: `call ${call} line ${i}` });
  });
  return lines.join("\n");
}

it("under live traffic nothing differs, and what is taken away is found", { timeout: 120_000 }, async () => {
  await using stack = await startStack({ env: process.env });
  const nc = await connect({ servers: stack.natsUrl, user: stack.natsUser, pass: stack.natsPassword, noAsyncTraces: true });
  await using _ = { [Symbol.asyncDispose]: () => nc.close() };
  await using gateway = await startService("gateway", stack);
  await using _projector = await startService("projector", stack);
  await using clickhouse = openClickHouse(stack.clickhouse!);
  const ports: VerifyPorts = {
    log: liveLog(nc),
    table: comparedTable(clickhouse, "relog_g1"),
    letters: (signal) => walkLetters(nc, "main", 1, signal),
    progress: async (shard) => (await register<{ stream: string; next: number }>(nc, `checkpoint.main.1.${shard}`).read())?.value,
  };
  let busy = true;
  let sent = 0;
  const authorization = `Bearer ${stack.serviceEnv().RELOG_KEY}`;
  const produce = async (): Promise<void> => {
    while (busy) {
      const answer = await fetch(`${gateway.url}/v1/ingest`, { method: "POST", headers: { authorization }, body: body(sent++) });
      expect(answer.status).toBe(200);
      await answer.json();
    }
  };
  const producers = Array.from({ length: 4 }, produce);
  await waitFor("traffic", () => (sent > 20 ? true : undefined));
  const verify = (settleMs: number): Promise<Verification> =>
    verifyGeneration(ports, { site: "main", generation: 1, shards: 2 }, new AbortController().signal, undefined, { settleMs });
  const results: Verification[] = [];
  // Without settling, messages that are under way at the cut are the rule.
  for (let i = 0; i < ROUNDS; i++) results.push(await verify(i % 2 === 0 ? 0 : 100));
  busy = false;
  await Promise.all(producers);
  for (const { findings, verdict, totals } of results) {
    expect(findings).toEqual([]);
    expect(verdict).not.toBe("different");
    expect(totals.table).toBe(totals.log);
  }
  expect(results.filter(({ ok }) => ok).length).toBeGreaterThanOrEqual(ROUNDS / 2);
  const read = results.map(({ totals }) => totals.log);
  expect(read).toEqual([...read].sort((a, b) => a - b));
  expect(read.at(-1)).toBeGreaterThan(read[0]!);

  const end = await verify(0);
  expect(end).toMatchObject({ verdict: "equal", totals: { log: sent * LINES, table: sent * LINES, counted: sent * LINES } });
  const statement = "ALTER TABLE relog_g1.logs DELETE WHERE line = 17 AND batch = (SELECT min(batch) FROM relog_g1.logs)";
  await clickhouse.read({ statement, settings: { mutations_sync: 2, allow_nondeterministic_mutations: 1 } });
  expect(await verify(0)).toMatchObject({ verdict: "different", findingsTotal: 1, findings: [{ kind: "missing", lines: [17] }] });
});

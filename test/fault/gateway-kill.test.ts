// Fault 4: a gateway gets SIGKILL in the middle of requests; clients repeat them under the same key against the next one.

import { expect } from "vitest";
import { sleep, waitFor } from "../../lib/base/loop.ts";
import { faultTest, scaled } from "./kit.ts";

for (const [name, env, records] of [
  ["one message a call", {}, 30],
  ["several messages a call", { RELOG_MESSAGE_BYTES_MAX: "1KiB" }, 60],
] as const) {
  faultTest(`killed mid-request: ${name}`, async (rig) => {
    const gateway = await rig.gateway(env);
    await rig.projector();
    const stop = new AbortController();
    const producing = rig.produce(gateway.url, { batches: 1e9, records, concurrency: 4, signal: stop.signal });
    for (let kill = 0; kill < scaled(5, 60); kill++) {
      const before = rig.ledger.of("acked").length;
      await waitFor("acknowledgements", () => (rig.ledger.of("acked").length > before + 8 ? true : undefined), 30_000, 5);
      await sleep(rig.random.between(0, 20));
      gateway.kill("SIGKILL");
      await gateway.child.exited;
      await gateway.restart();
    }
    stop.abort();
    await producing;
    expect(rig.ledger.of("refused")).toEqual([]);
    await rig.assertInvariants();
    // At least one call was found half done or done.
    expect(rig.ledger.calls.some((call) => call.answers.length > 0)).toBe(true);
    if (records === 60) expect(rig.ledger.of("acked").every((call) => call.receipt!.parts!.length > 1)).toBe(true);
  });
}

faultTest("the same key at once on two gateways, several messages: stored once, one receipt", async (rig) => {
  const env = { RELOG_MESSAGE_BYTES_MAX: "1KiB" };
  const [a, b] = await Promise.all([rig.gateway(env), rig.gateway(env)]);
  await rig.projector();
  for (let i = 0; i < scaled(20, 300); i++) {
    const { body, markers } = rig.batch(40, 0, 10);
    const call = rig.ledger.open(`twice-${i}`, markers);
    const twin = { ...call, answers: [] };
    await Promise.all([rig.send(a.url, body, call), rig.send(b.url, body, twin)]);
    expect(twin.receipt?.id).toBe(call.receipt?.id);
    expect(twin.receipt?.parts).toEqual(call.receipt?.parts);
  }
  await rig.assertInvariants();
});

// Fault 1: the projector gets SIGKILL at each step of the design.

import { expect } from "vitest";
import type { Failpoint } from "../../lib/projector/settle.ts";
import { died, faultTest, scaled } from "./kit.ts";

const LEASE = { RELOG_LEASE: "2s" };
const ROUNDS = scaled(1, 10);
type Step = Parameters<Failpoint>[0];

/** Steps that a projector reaches by itself. */
for (const step of ["planned", "inserted", "advanced"] satisfies Step[]) {
  faultTest(`killed at "${step}", the next one settles`, async (rig) => {
    const gateway = await rig.gateway();
    for (let round = 1; round <= ROUNDS; round++) {
      const first = await rig.projector({
        ...LEASE,
        RELOG_FAILPOINT: `${step}:${round}`,
        RELOG_PLAN_RECORDS_ENOUGH: "40",
        RELOG_PLAN_RECORDS_MAX: "60",
      });
      await rig.produce(gateway.url, { batches: scaled(30, 200), days: 5 });
      await died(first);
      const second = await rig.projector(LEASE);
      await rig.assertInvariants();
      await second.child.stop();
    }
  });
}

/** Steps that only a plan in doubt reaches: one is left behind first. */
for (const step of ["settling", "reinserted"] satisfies Step[]) {
  for (const left of ["planned", "inserted"] satisfies Step[]) {
    if (step === "reinserted" && left === "inserted") continue;
    faultTest(`killed at "${left}", then the next one at "${step}"`, async (rig) => {
      const gateway = await rig.gateway();
      const first = await rig.projector({ ...LEASE, RELOG_FAILPOINT: `${left}:1` });
      await rig.produce(gateway.url, { batches: 20, days: 12 });
      await died(first);
      for (let round = 0; round < ROUNDS; round++)
        await died(await rig.projector({ ...LEASE, RELOG_FAILPOINT: `${step}:1` }).catch(() => rig.services.at(-1)!));
      await rig.projector(LEASE);
      await rig.assertInvariants();
    });
  }
}

faultTest('killed at "parked", between a dead letter and the advance: one dead letter', async (rig) => {
  const gateway = await rig.gateway();
  const first = await rig.projector({ ...LEASE, RELOG_FAILPOINT: "parked:1" });
  await rig.produce(gateway.url, { batches: 5 });
  const seq = await rig.publishRaw("garbage");
  await died(first);
  await rig.produce(gateway.url, { batches: 5 });
  await rig.projector(LEASE);
  await rig.assertInvariants();
  expect(await rig.deadLetters()).toMatchObject([{ reason: "envelope_invalid", sequence: seq, stream: "LOGS_0", lines: "all" }]);
});

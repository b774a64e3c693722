// Asking for a de-duplication id on real servers: one replica, three, and a stream that allows roll-ups.

import { connect } from "nats";
import { expect, it } from "vitest";
import { startStack } from "../devstack/stack.ts";
import { knownId } from "./known.ts";

it.each([1, 3] as const)("an id is known or not, and nothing is stored: %i replicas", async (natsNodes) => {
  await using engines = await startStack({ env: process.env, clickhouse: false, natsNodes });
  const who = { user: engines.natsUser, pass: engines.natsPassword };
  const nc = await connect({ servers: engines.natsUrl.split(","), ...who, waitOnFirstConnect: true });
  const manager = await nc.jetstreamManager();
  for (const [name, allow] of [
    ["plain", false],
    ["rolling", true],
  ] as const) {
    await manager.streams.add({ name, subjects: [`${name}.>`], num_replicas: natsNodes, allow_rollup_hdrs: allow });
    const publish = (id: string) => nc.jetstream().publish(`${name}.a`, "x", { msgID: id });
    expect(await knownId(nc, `${name}.a`, "one")).toBeUndefined();
    await publish("one");
    for (let i = 0; i < 3; i++) {
      expect(await knownId(nc, `${name}.a`, "one")).toBe(1);
      expect(await knownId(nc, `${name}.a`, "two")).toBeUndefined();
    }
    expect(await publish("two")).toMatchObject({ seq: 2, duplicate: false });
    expect((await manager.streams.info(name)).state.messages).toBe(2);
  }
  await nc.close();
});

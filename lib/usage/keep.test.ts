// Snapshots in registers with compare-and-set: what is written when, and what never.

import { expect, it } from "vitest";
import type { KeptSnapshot, SnapshotRegister } from "./keep.ts";
import { Keeper, SNAPSHOT_BYTES_MAX } from "./keep.ts";
import { Meter } from "./meter.ts";
import { Calendars } from "./windows.ts";

const NOON = Date.parse("2026-11-25T12:00:00Z");
const FIRST = "2026-11-01T00:00:00Z";

class MemoryRegister implements SnapshotRegister {
  value: KeptSnapshot | undefined;
  revision = 0;

  async read() {
    return this.value === undefined ? undefined : { value: this.value, revision: this.revision };
  }

  async write(value: KeptSnapshot, revision: number) {
    if (revision !== this.revision) return undefined;
    this.value = structuredClone(value);
    return ++this.revision;
  }
}

function newMeter() {
  const meter = new Meter(
    1,
    new Calendars(),
    () => "UTC",
    () => NOON,
  );
  return meter;
}
const fold = (meter: Meter, tenant = "acme") => meter.fold(0, meter.position(0).next, { tenant, records: 1, size: 10, observedMs: NOON });

it("what changed is written, once; nothing before the stream is known", async () => {
  const [meter, register] = [newMeter(), new MemoryRegister()];
  const keeper = new Keeper(meter, [register], "a", () => undefined);
  expect([await keeper.write(), register.revision]).toEqual([0, 0]);
  meter.begin(0, FIRST, 1);
  fold(meter);
  expect(await keeper.write()).toBe(JSON.stringify(register.value).length);
  expect([await keeper.write(), register.revision]).toEqual([0, 1]);
  fold(meter);
  await keeper.write();
  expect(register.value).toMatchObject({ stream: FIRST, next: 3, by: "a", writes: 2, tenants: { acme: [0, 2, 20, 2, 20] } });
});

it("one that is further is left alone, and written over when this process is further", async () => {
  const [ahead, behind, register] = [newMeter(), newMeter(), new MemoryRegister()];
  for (const meter of [ahead, behind]) meter.begin(0, FIRST, 1);
  for (let i = 0; i < 3; i++) fold(ahead);
  fold(behind);
  const [first, second] = [ahead, behind].map((meter, i) => new Keeper(meter, [register], String(i), () => undefined));
  await first!.write();
  await second!.write();
  expect(register.value).toMatchObject({ by: "0", next: 4 });
  for (let i = 0; i < 3; i++) fold(behind);
  await second!.write();
  expect(register.value).toMatchObject({ by: "1", next: 5 });
});

it("of two streams the one that was made later counts", async () => {
  const [old, now, register] = [newMeter(), newMeter(), new MemoryRegister()];
  old.begin(0, FIRST, 1);
  now.begin(0, "2026-11-02T00:00:00Z", 1);
  for (let i = 0; i < 3; i++) fold(old);
  fold(now);
  const keep = (meter: Meter) => new Keeper(meter, [register], "x", () => undefined).write();
  await keep(old);
  await keep(now);
  await keep(old);
  expect(register.value).toMatchObject({ stream: "2026-11-02T00:00:00Z", next: 2 });
});

it("more than a value may have is not written, and said", async () => {
  const [meter, register, said] = [newMeter(), new MemoryRegister(), [] as (string | undefined)[]];
  meter.begin(0, FIRST, 1);
  const tenants = Math.ceil(SNAPSHOT_BYTES_MAX / 60);
  for (let i = 0; i < tenants; i++) fold(meter, `a-customer-with-a-rather-long-name-for-no-reason-${i}`);
  await new Keeper(meter, [register], "a", (_, why) => said.push(why)).write();
  expect([register.value, said]).toEqual([undefined, [expect.stringMatching(/^usage of \d+ tenants is \d+ bytes/)]]);
});

it("when told to stop it writes once more", async () => {
  const [meter, register, stop] = [newMeter(), new MemoryRegister(), new AbortController()];
  meter.begin(0, FIRST, 1);
  fold(meter);
  const running = new Keeper(meter, [register], "a", () => undefined).run(stop.signal);
  fold(meter);
  stop.abort();
  await running;
  expect(register.value?.next).toBe(3);
});

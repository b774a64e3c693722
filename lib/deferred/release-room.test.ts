// What the releaser leaves alone, against a stream and a register in memory.

import { pino } from "pino";
import { expect, it } from "vitest";
import { systemClock } from "../base/clock.ts";
import { sleep } from "../base/loop.ts";
import type { StoredMessage } from "../event/envelope.ts";
import { HEADERS } from "../event/envelope.ts";
import type { Register } from "../streams/cas.ts";
import type { ReleasePorts, Releasing, Room } from "./release.ts";
import { NOTHING_TO_DO, runReleases } from "./release.ts";

const NO_ROOM: Room = { records: 0, bytes: 0 };
/** Every message is older than that. */
const GRACE_MS = 1;

interface Shape {
  readonly storedMs: number;
  readonly headers: Readonly<Record<string, string>>;
}

function messageAt(seq: number, tenant: string, { storedMs, headers }: Shape = { storedMs: 0, headers: {} }): StoredMessage {
  return {
    seq,
    subject: `deferred.0.${tenant}`,
    storedMs,
    payload: new Uint8Array(),
    header: (name) => headers[name] ?? "",
    pairs: () => Object.entries(headers),
  };
}

/** @param tenants of the messages of DEFERRED, from sequence 1 on */
function world(tenants: readonly string[], room: () => Room | undefined, begun: Releasing = NOTHING_TO_DO) {
  let [value, revision] = [begun, 1];
  const stop = new AbortController();
  const state = { looks: 0, removed: [] as string[], appended: [] as string[] };
  const messages = tenants.map((tenant, i) => messageAt(i + 1, tenant));
  const register: Register<Releasing> = {
    read: async () => ({ value, revision }),
    async write(next, expected) {
      if (expected !== revision) return undefined;
      value = next;
      return ++revision;
    },
  };
  const ports: ReleasePorts = {
    lease: { register, owner: "here", leaseMs: 2_000 },
    clock: systemClock,
    shards: 1,
    async byTenant() {
      if (++state.looks === 3) stop.abort();
      return new Map(tenants.map((tenant) => [tenant, 1]));
    },
    next: async (tenant, seq) => messages.find((message) => message.seq >= seq && message.subject.endsWith(`.${tenant}`)),
    at: async (seq) => messages[seq - 1],
    removeUpTo: async (tenant, seq) => void state.removed.push(`${tenant} ${seq}`),
    async append({ tenant }) {
      state.appended.push(tenant);
      return { stream: "LOGS_0", seq: 1, duplicate: false };
    },
    storedAt: async () => undefined,
    lastSeq: async () => 0,
    storedBehind: async () => new Set(),
    storedUnder: async () => new Map(),
    dedupeWindowMs: 600_000,
    appendTimeoutMs: 20_000,
    quota: { left: room, stored: () => undefined },
    failpoint: () => undefined,
    events: { released: () => undefined, expired: () => stop.abort() },
    log: pino({ level: "silent" }),
  };
  const run = (other: Partial<ReleasePorts> = {}) => runReleases({ ...ports, ...other }, GRACE_MS, stop.signal);
  return { state, run, ports };
}

it("while the room of a quota is not known nothing expires; when there is none it does", async () => {
  const unknown = world(["acme"], () => undefined);
  await unknown.run();
  expect(unknown.state).toEqual({ looks: 3, removed: [], appended: [] });
  const none = world(["acme"], () => NO_ROOM);
  await none.run();
  expect(none.state).toMatchObject({ removed: ["acme 1"], appended: ["acme"] });
});

it("appends that take long do not let the rest be stored twice: what the streams' window has left is looked for again", async () => {
  const WINDOW_MS = 400;
  const headers = { [HEADERS.bodyHash]: "hash", [HEADERS.part]: "1", [HEADERS.firstLine]: "1" };
  const call = (key: string): Shape => ({ storedMs: Date.now() - WINDOW_MS / 2 + 50, headers: { ...headers, [HEADERS.messageId]: key } });
  const { state, run, ports } = world(["acme", "acme"], () => ({ records: 9, bytes: 9 }));
  const [slow, repeated] = [call("slow"), call("repeated")];
  const stored = { storedMs: repeated.storedMs, header: (name: string) => repeated.headers[name] ?? "" };
  // The first one is what takes long; the second was stored by another gateway.
  await run({
    dedupeWindowMs: WINDOW_MS,
    next: async (_tenant, seq) => (seq > 2 || state.removed.length > 0 ? undefined : messageAt(seq, "acme", seq === 1 ? slow : repeated)),
    async append(message) {
      await sleep(WINDOW_MS / 2);
      return await ports.append(message);
    },
    storedUnder: async (_shard, _tenant, ids) => (ids.has("repeated") ? new Map([["repeated", [stored]]]) : new Map()),
  });
  expect(state).toMatchObject({ removed: ["acme 2"], appended: ["acme"] });
});

it("what another tenant has at a sequence of an intent is not released", async () => {
  const intent = { tenant: "acme", seqs: [1, 2], after: {} };
  const { state, run } = world(["other", "acme"], () => undefined, { ...NOTHING_TO_DO, intent });
  await run();
  expect(state).toMatchObject({ removed: ["acme 2"], appended: ["acme"] });
});

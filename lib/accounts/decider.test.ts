// Given what happened, when a command comes, then this happens, or is refused.

import fc from "fast-check";
import { expect, it } from "vitest";
import { RelogError } from "../base/errors.ts";
import type { Account } from "./account.ts";
import { absent, evolve, isLive, REVOKED_KEPT } from "./account.ts";
import type { Command } from "./decider.ts";
import { decide, KEYS_MAX } from "./decider.ts";
import type { AccountEvent } from "./events.ts";
import { readAccountMessage } from "./events.ts";
import { newKey } from "./keys.ts";
import { T0 } from "./testing.ts";

const HOUR = 3_600_000;
const at = (ms: number): string => new Date(T0 + ms).toISOString();
const [A, B, C] = ["a".repeat(16), "b".repeat(16), "c".repeat(16)] as const;
const [HA, HB, HC] = ["a".repeat(64), "b".repeat(64), "c".repeat(64)] as const;

const fold = (events: readonly AccountEvent[], from: Account = absent("acme")): Account =>
  events.reduce((account, event) => evolve(account, event, T0), from);

const CREATED: AccountEvent = { type: "tenant_created", title: "Acme" };
const DISABLED: AccountEvent = { type: "tenant_disabled", reason: "unpaid" };
const DELETED: AccountEvent = { type: "tenant_deleted", reason: "gone" };
const key = (id: string, hash: string, more: Partial<Extract<AccountEvent, { type: "key_created" }>> = {}): AccountEvent => ({
  type: "key_created",
  key: id,
  hash,
  label: "l",
  scopes: ["ingest"],
  expires: null,
  operator: false,
  replaces: null,
  ...more,
});
const REVOKED: AccountEvent = { type: "key_revoked", key: A, reason: "leaked" };
const MAKE_A = { type: "create_key", key: A, hash: HA, label: "l", scopes: ["ingest"], expiresMs: null, operator: false } as const;
const ROTATE = { type: "rotate_key", key: A, next: B, hash: HB, graceMs: HOUR } as const;
const many = (count: number): AccountEvent[] => Array.from({ length: count }, () => key(newKey().id, HC));

const CASES: [name: string, given: AccountEvent[], when: Command, then: AccountEvent[] | string, operator?: boolean][] = [
  ["a tenant is made", [], { type: "create_tenant", title: "Acme" }, [CREATED]],
  ["a tenant is made twice", [CREATED], { type: "create_tenant", title: "x" }, "tenant_exists"],
  ["the own tenant is made sure of", [], { type: "ensure_tenant" }, [{ type: "tenant_created", title: "" }]],
  ["the own tenant is there", [CREATED, DISABLED], { type: "ensure_tenant" }, []],
  ["the own tenant was deleted", [CREATED, DELETED], { type: "ensure_tenant" }, "tenant_deleted"],
  ["a name is not used again", [CREATED, DELETED], { type: "create_tenant", title: "" }, "tenant_deleted"],
  ["a tenant that is not there", [], { type: "disable_tenant", reason: "" }, "not_found"],
  ["a title", [CREATED], { type: "rename_tenant", title: "B" }, [{ type: "tenant_renamed", title: "B" }]],
  ["the same title", [CREATED], { type: "rename_tenant", title: "Acme" }, []],
  ["disabling", [CREATED], { type: "disable_tenant", reason: "unpaid" }, [DISABLED]],
  ["disabling twice", [CREATED, DISABLED], { type: "disable_tenant", reason: "again" }, []],
  ["enabling", [CREATED, DISABLED], { type: "enable_tenant" }, [{ type: "tenant_enabled" }]],
  ["enabling what is enabled", [CREATED], { type: "enable_tenant" }, []],
  ["deleting", [CREATED], { type: "delete_tenant", reason: "gone" }, [DELETED]],
  ["deleting twice", [CREATED, DELETED], { type: "delete_tenant", reason: "" }, "tenant_deleted"],
  ["a key", [CREATED], MAKE_A, [key(A, HA)]],
  ["a key of no tenant", [], MAKE_A, "not_found"],
  ["a key of a disabled tenant may be made", [CREATED, DISABLED], MAKE_A, [key(A, HA)]],
  ["the same key again, as after a lost answer", [CREATED, key(A, HA)], MAKE_A, []],
  ["another key of the same id", [CREATED, key(A, HB)], MAKE_A, "bad_request"],
  ["a key that is expired already", [CREATED], { ...MAKE_A, expiresMs: T0 }, "bad_request"],
  ["one key too many", [CREATED, ...many(KEYS_MAX)], MAKE_A, "too_many_keys"],
  ["an operator's key by an admin", [CREATED], { ...MAKE_A, operator: true }, "forbidden", false],
  ["an operator's key by an operator", [CREATED], { ...MAKE_A, operator: true }, [key(A, HA, { operator: true })]],
  [
    "the first operator's key",
    [CREATED],
    { type: "ensure_operator_key", key: A, hash: HA },
    [key(A, HA, { label: "first operator key", scopes: ["ingest", "query", "admin"], operator: true })],
  ],
  ["there is an operator's key", [CREATED, key(B, HB, { operator: true })], { type: "ensure_operator_key", key: A, hash: HA }, []],
  ["revoking", [CREATED, key(A, HA)], { type: "revoke_key", key: A, reason: "leaked" }, [REVOKED]],
  ["revoking twice", [CREATED, key(A, HA), REVOKED], { type: "revoke_key", key: A, reason: "again" }, []],
  ["revoking what is not there", [CREATED], { type: "revoke_key", key: A, reason: "" }, "not_found"],
  [
    "an admin revokes an operator's key",
    [CREATED, key(A, HA, { operator: true })],
    { type: "revoke_key", key: A, reason: "" },
    "forbidden",
    false,
  ],
  ["an admin rotates an operator's key", [CREATED, key(A, HA, { operator: true })], ROTATE, "forbidden", false],
  ["a label", [CREATED, key(A, HA)], { type: "change_key", key: A, label: "m" }, [{ type: "key_changed", key: A, label: "m" }]],
  ["the same label", [CREATED, key(A, HA)], { type: "change_key", key: A, label: "l" }, []],
  [
    "an expiry",
    [CREATED, key(A, HA)],
    { type: "change_key", key: A, expiresMs: T0 + HOUR },
    [{ type: "key_changed", key: A, expires: at(HOUR) }],
  ],
  ["an expiry in the past", [CREATED, key(A, HA)], { type: "change_key", key: A, expiresMs: T0 }, "bad_request"],
  ["a revoked key stays so", [CREATED, key(A, HA), REVOKED], { type: "change_key", key: A, expiresMs: null }, "key_ended"],
  [
    "an expired key gets more time",
    [CREATED, key(A, HA, { expires: at(-HOUR) })],
    { type: "change_key", key: A, expiresMs: T0 + HOUR },
    [{ type: "key_changed", key: A, expires: at(HOUR) }],
  ],
  [
    "rotation: both live for the grace",
    [CREATED, key(A, HA)],
    ROTATE,
    [key(B, HB, { replaces: A }), { type: "key_changed", key: A, expires: at(HOUR) }],
  ],
  [
    "rotation without a grace",
    [CREATED, key(A, HA)],
    { ...ROTATE, graceMs: 0 },
    [key(B, HB, { replaces: A }), { type: "key_revoked", key: A, reason: `rotated to ${B}` }],
  ],
  [
    "rotation of a key with limits",
    [CREATED, key(A, HA), { type: "key_limited", key: A, limits: { queries_at_once: 2 } }],
    { ...ROTATE, graceMs: 0 },
    [
      key(B, HB, { replaces: A }),
      { type: "key_limited", key: B, limits: { queries_at_once: 2 } },
      { type: "key_revoked", key: A, reason: `rotated to ${B}` },
    ],
  ],
  [
    "rotation never lengthens the old key's life",
    [CREATED, key(A, HA, { expires: at(10) })],
    ROTATE,
    [key(B, HB, { replaces: A, expires: at(10) }), { type: "key_changed", key: A, expires: at(10) }],
  ],
  [
    "rotation twice: two keys live at once, not three",
    [CREATED, key(A, HA), key(B, HB, { replaces: A })],
    { ...ROTATE, next: C, hash: HC },
    "key_rotated",
  ],
  ["rotation again, as after a lost answer", [CREATED, key(A, HA), key(B, HB, { replaces: A })], ROTATE, []],
  ["rotation of an expired key", [CREATED, key(A, HA, { expires: at(-1) })], ROTATE, "key_ended"],
  [
    "limits",
    [CREATED],
    { type: "set_limits", limits: { queries_at_once: 3 }, quotas: { bytes_per_day: 5 }, retentionDays: 0 },
    [
      { type: "limits_changed", limits: { queries_at_once: 3 } },
      { type: "quotas_changed", quotas: { bytes_per_day: 5 } },
      { type: "retention_changed", retention_days: 0 },
    ],
  ],
  [
    "the same limits",
    [CREATED, { type: "limits_changed", limits: { queries_at_once: 3 } }],
    { type: "set_limits", limits: { queries_at_once: 3 } },
    [],
  ],
  [
    "a limit is taken away",
    [CREATED, { type: "limits_changed", limits: { queries_at_once: 3 } }],
    { type: "set_limits", limits: { queries_at_once: null, ingest_bytes_per_second: null } },
    [{ type: "limits_changed", limits: { queries_at_once: null } }],
  ],
  ["a tenant's admin may not", [CREATED], { type: "set_limits", limits: { queries_at_once: 9 } }, "forbidden", false],
  ["nor move its days", [CREATED], { type: "set_limits", quotas: { over_quota: "drop", time_zone: "UTC" } }, "forbidden", false],
  [
    "but chooses what a quota's end means",
    [CREATED],
    { type: "set_limits", quotas: { over_quota: "defer" } },
    [{ type: "quotas_changed", quotas: { over_quota: "defer" } }],
    false,
  ],
  [
    "a key is limited",
    [CREATED, key(A, HA)],
    { type: "limit_key", key: A, limits: { tails_at_once: 1, queries_at_once: null } },
    [{ type: "key_limited", key: A, limits: { tails_at_once: 1 } }],
  ],
  ["a revoked key is not limited", [CREATED, key(A, HA), REVOKED], { type: "limit_key", key: A, limits: {} }, "key_ended"],
  [
    "an operator's key is its own",
    [CREATED, key(A, HA, { operator: true })],
    { type: "limit_key", key: A, limits: {} },
    "forbidden",
    false,
  ],
];

it.each(CASES)("%s", (_, given, when, then, operator = true) => {
  const outcome = decide(fold(given), when, { nowMs: T0, operator });
  expect(outcome instanceof RelogError ? outcome.code : outcome).toEqual(then);
  if (outcome instanceof RelogError) return;
  // What was done is done: the same command again has nothing to do, or says that it is done.
  const again = decide(fold(outcome, fold(given)), when, { nowMs: T0, operator });
  expect(again instanceof RelogError ? again.code : again).toSatisfy(
    (one) => one.length === 0 || ["tenant_exists", "tenant_deleted", "key_rotated"].includes(one as string),
  );
});

it("the state has what the events say", () => {
  const account = fold([
    CREATED,
    key(A, HA),
    key(B, HB, { replaces: A }),
    REVOKED,
    { type: "limits_changed", limits: { queries_at_once: 3 } },
    { type: "limits_changed", limits: { queries_at_once: null } },
  ]);
  expect([account.status, account.title, account.limits]).toEqual(["active", "Acme", {}]);
  expect([...account.keys.values()].map((one) => [one.id, isLive(one, T0)])).toEqual([
    [A, false],
    [B, true],
  ]);
  expect(fold([DELETED, CREATED, key(A, HA)]).status).toBe("deleted");
});

it("of revoked keys the last are kept", () => {
  const ids = Array.from({ length: REVOKED_KEPT + 5 }, () => newKey().id);
  const events = ids.flatMap((id): AccountEvent[] => [key(id, HA), { type: "key_revoked", key: id, reason: "" }]);
  expect([...fold([CREATED, ...events]).keys.keys()]).toEqual(ids.slice(5));
});

const ids = fc.constantFrom(A, B, C);
const text = fc.constantFrom("", "x", "y");
const when = fc.option(fc.integer({ min: -5, max: 50 }).map((ms) => T0 + ms));
const command: fc.Arbitrary<Command> = fc.oneof(
  fc.record({ type: fc.constant("create_tenant" as const), title: text }),
  fc.record({ type: fc.constantFrom("disable_tenant" as const, "delete_tenant" as const), reason: text }),
  fc.record({ type: fc.constantFrom("enable_tenant" as const, "ensure_tenant" as const) }),
  fc.record({
    type: fc.constant("create_key" as const),
    key: ids,
    hash: fc.constantFrom(HA, HB),
    label: text,
    scopes: fc.constant(["query"] as const),
    expiresMs: when,
    operator: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("rotate_key" as const),
    key: ids,
    next: ids,
    hash: fc.constantFrom(HA, HC),
    graceMs: fc.integer({ min: 0, max: 9 }),
  }),
  fc.record({ type: fc.constant("change_key" as const), key: ids, label: text, expiresMs: when }),
  fc.record({ type: fc.constant("revoke_key" as const), key: ids, reason: text }),
  fc.record({
    type: fc.constant("set_limits" as const),
    limits: fc.record({ queries_at_once: fc.option(fc.integer({ min: 1, max: 3 })) }),
    retentionDays: fc.option(fc.integer({ min: 0, max: 2 })),
  }),
);

it("any commands fold to the same state from events, also after they were JSON; rights are never gained", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(command, fc.boolean(), fc.nat(3)), { maxLength: 40 }), (steps) => {
      let [live, nowMs] = [absent("acme"), T0];
      const log: { at: number; text: string }[] = [];
      for (const [one, operator, ms] of steps) {
        nowMs += ms;
        const events = decide(live, one, { nowMs, operator });
        if (events instanceof RelogError || events.length === 0) continue;
        const before = [...live.keys.values()].filter((held) => held.operator && isLive(held, nowMs)).map(({ id }) => id);
        for (const event of events) live = evolve(live, event, nowMs);
        const after = [...live.keys.values()].filter((held) => held.operator && isLive(held, nowMs)).map(({ id }) => id);
        if (!operator && live.status !== "deleted") expect(after).toEqual(before);
        log.push({
          at: nowMs,
          text: JSON.stringify({
            version: 1,
            id: "01JGK00000000000000000TEST",
            time: new Date(nowMs).toISOString(),
            tenant: "acme",
            who: "",
            where: "",
            events,
          }),
        });
      }
      let folded = absent("acme");
      for (const entry of log) {
        const { message, unknown } = readAccountMessage(JSON.parse(entry.text))!;
        expect(unknown).toBe(0);
        for (const event of message.events) folded = evolve(folded, event, entry.at);
      }
      expect(folded).toEqual(live);
    }),
    { numRuns: 300 },
  );
});

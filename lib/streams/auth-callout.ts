// NATS's authorization callout: nats-server asks whether a connection may be, and what it may do.
//
// Promises: whoever may not learns nothing but that; a question of another issuer, too old, or not signed by the server that
// asks is not answered; neither is one that cannot be decided now, so that the server's own timeout sends the client away to
// try again, and another process may answer. Deciding is synchronous, and what comes too late is dropped unread: a flood of
// connections costs at most its own answers. Source: nats-architecture-and-design, adr/ADR-26.md, and server/auth_callout.go.

import type { Msg, NatsConnection } from "nats";
import { secret, text } from "../base/config.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import { readJwt, writeJwt } from "./jwt.ts";
import { accountSigner, isPublicKey } from "./nkey.ts";
import { PRODUCERS_ACCOUNT } from "./sender.ts";

export const calloutSettings = {
  calloutSeed: secret(
    "NATS_CALLOUT_SEED",
    "",
    "seed of the account nkey that nats-server's auth_callout names as issuer (`relog nats-auth` makes one): API keys then open NATS; empty: only RELOG_TENANT is taken from there, at its word",
  ),
  systemUser: text("NATS_SYSTEM_USER", "relog_system", "user of NATS's system account, who ends connections of revoked keys"),
  systemPassword: secret("NATS_SYSTEM_PASSWORD", "", "its password; must be given with NATS_CALLOUT_SEED"),
};

/** What is wrong with these settings, as a relation of lib/base/config.ts. */
export function calloutFault(settings: { readonly calloutSeed: string; readonly systemPassword: string }): string | undefined {
  if (settings.calloutSeed === "") return undefined;
  if (accountSigner(settings.calloutSeed) === undefined)
    return "NATS_CALLOUT_SEED must be the seed of an account nkey (SA...); `relog nats-auth` makes one";
  return settings.systemPassword === ""
    ? "NATS_SYSTEM_PASSWORD must be set with NATS_CALLOUT_SEED, or connections of revoked keys would stay"
    : undefined;
}

const SUBJECT = "$SYS.REQ.USER.AUTH";
const QUEUE = "gateways";
/** A client has one inbox, and some more while it reconnects. */
const SUBSCRIPTIONS_MAX = 32;
/** How far the clocks of servers and gateways may be apart. */
const SKEW_MS = 10_000;
/** max_payload of ops/nats/limits.conf. */
const PAYLOAD_BYTES_MAX = 8 * 2 ** 20;

/** What a connection showed. */
export interface Connecting {
  /** The token, or the password that came with any user name; undefined without either. */
  readonly credential: string | undefined;
  readonly host: string;
}

/** What a connection may do, and its name in the server's lists. */
export interface Grant {
  readonly kind: "grant";
  readonly name: string;
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
  /** When the server ends it, milliseconds since the epoch; null never. */
  readonly untilMs: number | null;
}
export type CalloutVerdict = Grant | { readonly kind: "refuse" } | { readonly kind: "later" };

interface Question {
  readonly serverId: string;
  readonly userKey: string;
  readonly connecting: Connecting;
}

const object = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
const string = (value: unknown): string => (typeof value === "string" ? value : "");

/** What the server asks; else why it is not answered. @param token as it came @param issuer our public key */
export function readQuestion(token: string, issuer: string, nowMs: number): Question | { readonly fault: string } {
  const claims = readJwt(token, "server");
  if (claims === undefined) return { fault: "it is not signed by a server" };
  if (claims.sub !== issuer) return { fault: "the server names another issuer: auth_callout and NATS_CALLOUT_SEED differ" };
  if (typeof claims.exp !== "number" || claims.exp * 1_000 + SKEW_MS < nowMs) return { fault: "it is too old" };
  const nats = object(claims.nats);
  const id = string(object(nats.server_id).id);
  const userKey = string(nats.user_nkey);
  if (nats.type !== "authorization_request" || id !== claims.iss || !isPublicKey(userKey, "user")) return { fault: "it is malformed" };
  const { auth_token, pass } = object(nats.connect_opts);
  const credential = string(auth_token) || string(pass) || undefined;
  return { serverId: id, userKey, connecting: { credential, host: string(object(nats.client_info).host) } };
}

/** The answers to questions, signed by the account of `seed`. @throws Error when that is no seed */
export function calloutAnswers(seed: string) {
  const signer = accountSigner(seed);
  if (signer === undefined) throw new Error("the seed is none of an account");
  const answer = ({ serverId, userKey }: Question, nats: object, nowMs: number): string =>
    writeJwt(signer, { sub: userKey, aud: serverId, nats: { type: "authorization_response", version: 2, ...nats } }, nowMs);
  return {
    issuer: signer.publicKey,
    /** The server shows the reason in its log, and the client only that it was refused. */
    refuse: (question: Question, nowMs: number): string => answer(question, { error: "refused" }, nowMs),
    grant(question: Question, { name, publish, subscribe, untilMs }: Grant, nowMs: number): string {
      const user = {
        sub: question.userKey,
        aud: PRODUCERS_ACCOUNT,
        name,
        // In whole seconds; the guard of lib/accounts is exact.
        ...(untilMs === null ? {} : { exp: Math.ceil(untilMs / 1_000) }),
        nats: {
          type: "user",
          version: 2,
          pub: { allow: publish },
          sub: { allow: subscribe },
          subs: SUBSCRIPTIONS_MAX,
          data: -1,
          payload: PAYLOAD_BYTES_MAX,
          allowed_connection_types: ["STANDARD", "WEBSOCKET"],
        },
      };
      return answer(question, { jwt: writeJwt(signer, user, nowMs) }, nowMs);
    },
  };
}

/** Answers as one of the gateways. @param decide never throws @param dropped told why a question was not answered */
export function serveAuthCallout(
  nc: NatsConnection,
  seed: string,
  decide: (connecting: Connecting) => CalloutVerdict,
  dropped: (why: string) => void,
  log: Logger,
  nowMs: () => number,
): AsyncDisposable {
  const answers = calloutAnswers(seed);
  function answerTo(message: Msg): void {
    const question = readQuestion(Buffer.from(message.data).toString("utf8"), answers.issuer, nowMs());
    if ("fault" in question) {
      dropped(question.fault);
      return;
    }
    const verdict = decide(question.connecting);
    switch (verdict.kind) {
      case "grant":
        message.respond(answers.grant(question, verdict, nowMs()));
        return;
      case "refuse":
        message.respond(answers.refuse(question, nowMs()));
        return;
      case "later":
        dropped("it cannot be decided now");
        return;
      default:
        verdict satisfies never;
    }
  }
  const subscription = nc.subscribe(SUBJECT, {
    queue: QUEUE,
    callback(error, message) {
      if (error) log.error({ err: error }, "connections of producers cannot be authorized: the subscription failed");
      else
        try {
          answerTo(message);
        } catch (thrown) {
          log.error({ why: messageOf(thrown) }, "a connection of a producer was not authorized");
        }
    },
  });
  return { [Symbol.asyncDispose]: () => subscription.drain() };
}

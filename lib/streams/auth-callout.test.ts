// The signed messages of auth callout, against vectors that nkeys.js 1.1.0 made.

import { expect, it } from "vitest";
import type { Grant } from "./auth-callout.ts";
import { calloutAnswers, calloutFault, readQuestion } from "./auth-callout.ts";
import type { Claims } from "./jwt.ts";
import { readJwt, writeJwt } from "./jwt.ts";
import { accountSigner, isPublicKey, isSignedBy, newAccountSeed } from "./nkey.ts";

const ACCOUNTS: readonly [fill: number, seed: string, publicKey: string, signatureOfRelog: string][] = [
  [
    0,
    "SAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHT5A",
    "AA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCS47C",
    "0DoCLMCZ_RwOP_QbwfR6Aa2c0qbd67BqqRcyjwmjEy7qBJlOfuQ5P0EKMzUulQZH49PafDW9-tZ71Kzk911sAA",
  ],
  [
    1,
    "SAAACAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAKM5I",
    "ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU",
    "2bzlhN5NYrLhoBMqICVhKcFsXfjEgoPMVq6q4CHgC3QRWLRXKv_A_P39Wgqn5J7JC2AU0oLzLBdCMWQytNHVBQ",
  ],
  [
    255,
    "SAAP777777777777777777777777777777777777777777777777772HNQ",
    "AB3KCWJAISTOJ5IREZN4U45GATMQWBJJ2HPWAK7DBIM2SJLWMDI7KVL4",
    "H6KHmKi3GScPLMsUklfh8Rk7r7IFbsj8ZlVQLEcfcWUNxs2592M1SnyWEFIG8_85PlsAtI4T6c_jkSEqsWV4Bw",
  ],
];
const SERVER = "NDVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCYLVO";
const USER = "UAJZR5RMNUNEK7CRXJVEWXZ5XUXWT7FJGILCDDOITF7EC26RPWJ4VH26";
/** Signed by SERVER for the second account, good until 2026-01-02T03:04:07Z. */
const TOKEN =
  "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJhdWQiOiJuYXRzLWF1dGhvcml6YXRpb24tcmVxdWVzdCIsImV4cCI6MTc2NzMyMzA0NywiaWF0IjoxNzY3MzIzMDQ1LCJpc3MiOiJORFZFVTNERDRLT0ZFQ1Y2NlZJSFdFWk9ZWDRaS1IzV1YyN0w0NjRTSUlQT1UySVVJM0pDWUxWTyIsInN1YiI6IkFDRklSWTY1T1FFN0RGUDVLTE5TMlBGMkxWWk1VWllKWDRPWklFUTM2TjJJUUFOVUI1WFZZWU9VIiwibmF0cyI6eyJzZXJ2ZXJfaWQiOnsibmFtZSI6Im4xIiwiaG9zdCI6IjEyNy4wLjAuMSIsImlkIjoiTkRWRVUzREQ0S09GRUNWNjZWSUhXRVpPWVg0WktSM1dWMjdMNDY0U0lJUE9VMklVSTNKQ1lMVk8iLCJ2ZXJzaW9uIjoiMi4xNS4xIn0sInVzZXJfbmtleSI6IlVBSlpSNVJNTlVORUs3Q1JYSlZFV1haNVhVWFdUN0ZKR0lMQ0RET0lURjdFQzI2UlBXSjRWSDI2IiwiY2xpZW50X2luZm8iOnsiaG9zdCI6IjEwLjAuMC43IiwiaWQiOjYsImtpbmQiOiJDbGllbnQiLCJ0eXBlIjoibmF0cyJ9LCJjb25uZWN0X29wdHMiOnsiYXV0aF90b2tlbiI6InJlbG9nX3giLCJwcm90b2NvbCI6MX0sInR5cGUiOiJhdXRob3JpemF0aW9uX3JlcXVlc3QiLCJ2ZXJzaW9uIjoyfX0.wWK78imn1JAdjreIPK8ff17rihs2r8UWW7oNrFsbChI52NhK0Vy15W5jYfOPJZi2ROkZtXK-Vr4u33iePv6bDA";
const [, SEED, ISSUER] = ACCOUNTS[1]!;
const NOW = Date.parse("2026-01-02T03:04:05.500Z");

it.each(ACCOUNTS)("the account whose seed is 32 times %i", (fill, seed, publicKey, signature) => {
  expect(newAccountSeed((bytes) => new Uint8Array(bytes).fill(fill))).toBe(seed);
  const signer = accountSigner(seed)!;
  expect(signer.publicKey).toBe(publicKey);
  expect(Buffer.from(signer.sign(Buffer.from("relog"))).toString("base64url")).toBe(signature);
  const bytes = Buffer.from(signature, "base64url");
  expect(isSignedBy(publicKey, "account", Buffer.from("relog"), bytes)).toBe(true);
  expect(isSignedBy(publicKey, "account", Buffer.from("relox"), bytes)).toBe(false);
  expect(isSignedBy(publicKey, "server", Buffer.from("relog"), bytes)).toBe(false);
  expect(isSignedBy(publicKey, "account", Buffer.from("relog"), bytes.subarray(1))).toBe(false);
});

it("keys of one kind are not taken for another, nor malformed ones for any", () => {
  expect([isPublicKey(SERVER, "server"), isPublicKey(USER, "user"), isPublicKey(ISSUER, "account")]).toEqual([true, true, true]);
  expect([isPublicKey(SERVER, "user"), isPublicKey(USER, "account"), isPublicKey(SEED, "account")]).toEqual([false, false, false]);
  for (const wrong of ["", "A", "SA", SEED.slice(0, -1), `${SEED}A`, SEED.toLowerCase(), SEED.replace("SAAAC", "SAAAD"), ISSUER, "é"])
    expect([accountSigner(wrong), isPublicKey(wrong === ISSUER ? "" : wrong, "account")], wrong).toEqual([undefined, false]);
});

it.each<[string, string, string, RegExp | undefined]>([
  ["", SEED, "p", undefined],
  ["without a seed", "", "", undefined],
  ["a public key", ISSUER, "p", /must be the seed/],
  ["no password", SEED, "", /NATS_SYSTEM_PASSWORD must be set/],
])("settings: %s", (_, calloutSeed, systemPassword, fault) => {
  const found = calloutFault({ calloutSeed, systemPassword });
  if (fault === undefined) expect(found).toBeUndefined();
  else expect(found).toMatch(fault);
});

it("a question is read when it is a server's, for us, and fresh", () => {
  expect(readQuestion(TOKEN, ISSUER, NOW)).toEqual({
    serverId: SERVER,
    userKey: USER,
    connecting: { credential: "relog_x", host: "10.0.0.7" },
  });
  const [head, body, signature] = TOKEN.split(".") as [string, string, string];
  const claims = JSON.parse(Buffer.from(body, "base64url").toString()) as Claims;
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const cases: [why: RegExp, token: string, issuer: string, nowMs: number][] = [
    [/too old/, TOKEN, ISSUER, NOW + 15_000],
    [/another issuer/, TOKEN, ACCOUNTS[0]![2], NOW],
    [/not signed/, "", ISSUER, NOW],
    [/not signed/, "a.b.c", ISSUER, NOW],
    [/not signed/, `${head}.${body}`, ISSUER, NOW],
    [/not signed/, `${TOKEN}.${signature}`, ISSUER, NOW],
    [/not signed/, `${head}.${part({ ...claims, sub: "x" })}.${signature}`, ISSUER, NOW],
    [/not signed/, `${part({ typ: "JWT", alg: "none" })}.${body}.`, ISSUER, NOW],
    [/not signed/, `${part({ typ: "JWT", alg: "none" })}.${body}.${signature}`, ISSUER, NOW],
    // Signed, though by an account.
    [/not signed/, writeJwt(accountSigner(SEED)!, claims, NOW), ISSUER, NOW],
    [/not signed/, "x".repeat(300_000), ISSUER, NOW],
  ];
  for (const [why, token, issuer, nowMs] of cases)
    expect(readQuestion(token, issuer, nowMs), token.slice(0, 40)).toEqual({ fault: expect.stringMatching(why) });
});

it("an answer grants what it says and no more, to the user and the server that asked", () => {
  const question = readQuestion(TOKEN, ISSUER, NOW);
  if ("fault" in question) throw new Error(question.fault);
  const answers = calloutAnswers(SEED);
  const grant: Grant = { kind: "grant", name: "key.acme.k", publish: ["ingest.acme"], subscribe: ["_INBOX_acme.>"], untilMs: NOW + 1 };
  const outer = readJwt(answers.grant(question, grant, NOW), "account") as { nats: { jwt: string } } & Claims;
  expect(outer).toMatchObject({ iss: ISSUER, sub: USER, aud: SERVER, nats: { type: "authorization_response", version: 2 } });
  expect(readJwt(outer.nats.jwt, "account")).toEqual({
    iss: ISSUER,
    sub: USER,
    aud: "PRODUCERS",
    name: "key.acme.k",
    iat: Math.floor(NOW / 1_000),
    jti: expect.any(String),
    exp: Math.floor(NOW / 1_000) + 1,
    nats: {
      type: "user",
      version: 2,
      pub: { allow: ["ingest.acme"] },
      sub: { allow: ["_INBOX_acme.>"] },
      subs: expect.any(Number),
      data: -1,
      payload: 8_388_608,
      allowed_connection_types: ["STANDARD", "WEBSOCKET"],
    },
  });
  const forever = readJwt(answers.grant(question, { ...grant, untilMs: null }, NOW), "account") as { nats: { jwt: string } };
  expect(readJwt(forever.nats.jwt, "account")).not.toHaveProperty("exp");
  const refusal = readJwt(answers.refuse(question, NOW), "account");
  expect(refusal).toMatchObject({ sub: USER, aud: SERVER, nats: { error: "refused" } });
  expect(refusal?.nats).not.toHaveProperty("jwt");
});

// compose.yaml, the Dockerfile and the files of ops/ agree with each other and with the code. Containers cannot be run in the
// tests; `docker-compose config` runs where it is installed, and the real nats-server reads its production configuration.

import { execFileSync } from "node:child_process";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { expect, test } from "vitest";
import { findNatsServer } from "../../lib/devstack/nats-find.ts";
import { accountSigner } from "../../lib/streams/nkey.ts";

const read = (path: string): string => readFileSync(path, "utf8");
const compose = read("compose.yaml");
/** Without comments, which stand alone on their lines. */
const lines = compose.split("\n").filter((line) => !line.trim().startsWith("#"));
const all = (pattern: RegExp, text = lines.join("\n")): string[] =>
  [...new Set([...text.matchAll(pattern)].map((match) => match[1]!))].sort();
/** The names one level inside a top-level section. */
function namesIn(section: string): string[] {
  const from = lines.indexOf(`${section}:`) + 1;
  expect(from, section).toBeGreaterThan(0);
  const length = lines.slice(from).findIndex((line) => /^\S/.test(line));
  return all(/^ {2}([\w-]+):/gm, lines.slice(from, length < 0 ? undefined : from + length).join("\n"));
}
/** The items of every `key: [a, b]`. */
const listed = (key: string): string[] =>
  [...new Set(all(new RegExp(`^ +${key}: \\[([^\\]]*)\\]`, "gm")).flatMap((items) => items.split(",").map((item) => item.trim())))].sort();

test("every environment variable is a setting of the code, or read by a file of ops", () => {
  const code = ["lib/**/*.ts", "cmd/**/*.ts"].flatMap((pattern) => globSync(pattern)).filter((path) => !path.endsWith(".test.ts"));
  const settings = new Set(
    code.flatMap((path) => all(/\b(?:text|secret|integer|duration|bytes|choice)\(\s*"([A-Z][A-Z0-9_]+)"/g, read(path))),
  );
  expect(settings.size).toBeGreaterThan(30);
  const ops = globSync("ops/**/*.{conf,xml}").map(read).join("\n") + read("Dockerfile");
  // Of ClickHouse's image itself.
  const foreign = ["CLICKHOUSE_SKIP_USER_SETUP"];
  const used = all(/(?:^ +|[{,] |export )([A-Z][A-Z0-9_]{3,})[:=]/gm);
  expect(used).toContain("NATS_URL");
  expect(used).toContain("RELOG_NATS_ZONE");
  expect(used.filter((name) => !settings.has(name) && !ops.includes(name) && !foreign.includes(name))).toEqual([]);
  const wanted = [...all(/\$(RELOG_[A-Z0-9_]+)/g, ops), ...all(/from_env="([A-Z0-9_]+)"/g, ops)];
  expect(wanted.filter((name) => !used.includes(name))).toEqual([]);
});

test("every mounted file exists, and the engines get the files that the embedded ones get", () => {
  const mounted = all(/(\.\/ops\/[^:\s,]+):\/etc/g);
  expect(mounted.filter((path) => !existsSync(path))).toEqual([]);
  for (const path of ["./ops/nats", "./ops/clickhouse/config.d/relog.xml", "./ops/clickhouse/users.d/relog.xml"])
    expect(mounted).toContain(path);
  for (const path of ["server.conf", "limits.conf", "jetstream.conf", "accounts.conf"])
    expect(existsSync(join("ops/nats", path)), path).toBe(true);
});

test("every secret, volume, network and service that is named is declared, and nothing else is", () => {
  const secrets = namesIn("secrets");
  expect(all(/\/run\/secrets\/(\w+)/g).filter((name) => !secrets.includes(name))).toEqual([]);
  expect(listed("secrets")).toEqual(secrets);
  expect(listed("networks")).toEqual(namesIn("networks"));
  expect(all(/[["\s]([\w-]+):\/(?:data|var|archive)/g)).toEqual(namesIn("volumes"));
  const services = namesIn("services");
  expect(all(/^ +([\w-]+): \{ condition: service_healthy \}/gm).filter((name) => !services.includes(name))).toEqual([]);
  const readme = read("ops/README.md");
  for (const secret of secrets) expect(readme, secret).toContain(secret);
});

test("every process runs from the image, and on a port that its health check asks", () => {
  const commands = all(/command: \[node, (cmd\/\w+\.ts)\]/g);
  expect(commands).toEqual(["cmd/gateway.ts", "cmd/projector.ts", "cmd/query.ts", "cmd/scheduler.ts"]);
  const ports = commands.map((path) => /"RELOG_\w+_PORT", "(\d+)"/.exec(read(path))?.[1]);
  expect(all(/RELOG_HEALTH_URL: "http:\/\/127\.0\.0\.1:(\d+)\/healthz"/g)).toEqual(ports.sort());
  for (const folder of all(/^COPY ([a-z]+) /gm, read("Dockerfile"))) {
    expect(existsSync(folder), folder).toBe(true);
    expect(read(".dockerignore")).toContain(`!${folder}\n`);
  }
});

test("nats-server takes its production configuration, also with passwords that look like numbers", async () => {
  const made = execFileSync(process.execPath, ["cmd/relog.ts", "nats-auth"], { stdio: "pipe" }).toString();
  const [, seed, issuer] = /^seed (SA[A-Z2-7]{56})\nissuer (A[A-Z2-7]{55})\n$/.exec(made) ?? [];
  expect(accountSigner(seed ?? "")?.publicKey).toBe(issuer);
  const binary = await findNatsServer(process.env);
  const env = {
    RELOG_NATS_NAME: "n1",
    RELOG_NATS_ZONE: '"az:1"',
    RELOG_NATS_PASSWORD: '"12"',
    RELOG_NATS_SYSTEM_PASSWORD: '"3e4"',
    RELOG_NATS_CALLOUT_ISSUER: `"${issuer}"`,
  };
  const dir = mkdtempSync(join(tmpdir(), "relog-compose-"));
  const config = join(dir, "server.conf");
  writeFileSync(config, read("ops/nats/server.conf").replaceAll(/include "/g, `include "${join("..", "..", process.cwd(), "ops/nats")}/`));
  const run = (env: Record<string, string>) => execFileSync(binary, ["-t", "-c", config], { env, stdio: "pipe" });
  run(env);
  expect(() => run({ ...env, RELOG_NATS_PASSWORD: "12" })).toThrow();
  expect(() => run({ ...env, RELOG_NATS_CALLOUT_ISSUER: '"nobody"' })).toThrow();
  rmSync(dir, { recursive: true });
});

const installed = (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, "docker-compose")));
test.runIf(installed)("docker-compose takes it", () => {
  const config = execFileSync("docker-compose", ["-f", "compose.yaml", "config"], { stdio: "pipe", timeout: 30_000 }).toString();
  for (const name of namesIn("services")) expect(config).toContain(`\n  ${name}:\n`);
});

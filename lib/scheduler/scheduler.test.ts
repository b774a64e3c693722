import { Hono } from "hono";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { readBody } from "../base/body.ts";
import { systemClock } from "../base/clock.ts";
import { Health } from "../base/health.ts";
import { withContractErrors } from "../base/http.ts";
import { createTelemetry } from "../base/telemetry.ts";
import type { Job } from "./jobs.ts";
import { runJobs } from "./jobs.ts";
import { jobRoutes, operatorApi } from "./operator.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const ended = (signal: AbortSignal): Promise<void> => new Promise((done) => signal.addEventListener("abort", () => done()));

/** As sleep, of the fake timers. */
function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    });
  });
}

function start(...jobs: Job[]) {
  const health = new Health();
  const telemetry = createTelemetry("test", "silent", false);
  const running = runJobs(jobs, health, telemetry, systemClock, wait);
  const metric = async (name: string, job: string): Promise<number | undefined> => {
    const found = await telemetry.registry.getSingleMetric(name)!.get();
    return found.values.find(({ labels }) => labels.job === job)?.value;
  };
  return { health, running, metric };
}

it("a job that throws is begun again after growing pauses, warned of, counted, and forgiven when it runs", async () => {
  let runs = 0;
  const shaky: Job = {
    name: "shaky",
    run: async (signal) => {
      runs++;
      if (runs <= 3) throw new Error(`no ${runs}`);
      await ended(signal);
    },
  };
  const steady: Job = { name: "steady", run: ended };
  const { health, running, metric } = start(shaky, steady);
  await vi.advanceTimersByTimeAsync(0);
  expect(health.ready).toBe(true);
  expect(health.report().warnings).toEqual({ "job shaky": "failed: no 1" });
  expect(running.report()[0]).toMatchObject({ name: "shaky", state: "failed", failures: 1, error: "no 1" });
  expect(await metric("relog_job_running", "shaky")).toBe(0);
  await vi.advanceTimersByTimeAsync(249);
  expect(runs).toBe(1);
  await vi.advanceTimersByTimeAsync(251 + 1_000 + 2_000);
  expect(runs).toBe(4);
  expect(await metric("relog_job_failures_total", "shaky")).toBe(3);
  expect(await metric("relog_job_failures_total", "steady")).toBe(0);
  expect(await metric("relog_job_running", "shaky")).toBe(1);
  expect(health.report().warnings).toEqual({ "job shaky": "failed: no 3" });
  await vi.advanceTimersByTimeAsync(30_000);
  expect(health.report().warnings).toEqual({});
  expect(running.report().map(({ state }) => state)).toEqual(["running", "running"]);
  await running[Symbol.asyncDispose]();
  expect(running.report().map(({ state }) => state)).toEqual(["done", "done"]);
});

it("pauses are a minute at most, and short again after a job has run well", async () => {
  const runs: number[] = [];
  const failing: Job = {
    name: "failing",
    run: async (signal) => {
      runs.push(Date.now());
      if (runs.length === 20) await new Promise((done) => setTimeout(done, 31_000));
      if (!signal.aborted) throw new Error("no");
    },
  };
  const { running } = start(failing);
  await vi.advanceTimersByTimeAsync(20 * 60_000);
  const pauses = runs.slice(1).map((at, i) => at - runs[i]!);
  expect(Math.max(...pauses.slice(0, 19))).toBeLessThanOrEqual(60_000);
  expect(pauses[18]).toBeGreaterThanOrEqual(30_000);
  expect(pauses[19]).toBeLessThanOrEqual(31_500);
  await running[Symbol.asyncDispose]();
});

it("a job that returns is done and is not begun again", async () => {
  let runs = 0;
  const once: Job = { name: "once", run: async () => void runs++ };
  const { running } = start(once);
  await vi.advanceTimersByTimeAsync(120_000);
  expect(runs).toBe(1);
  expect(running.report()).toMatchObject([{ name: "once", state: "done", failures: 0 }]);
  await running[Symbol.asyncDispose]();
});

it("leaving interrupts pauses, waits for jobs under way, and not for ever", async () => {
  const seen: string[] = [];
  const slow: Job = {
    name: "slow",
    run: async (signal) => {
      await ended(signal);
      await new Promise((done) => setTimeout(done, 2_000));
      seen.push("slow ended");
    },
  };
  const failing: Job = {
    name: "failing",
    run: async (signal) => {
      if (signal.aborted) seen.push("begun after the end");
      throw new Error("no");
    },
  };
  const first = start(slow, failing);
  await vi.advanceTimersByTimeAsync(100);
  const left = first.running[Symbol.asyncDispose]();
  await vi.advanceTimersByTimeAsync(2_000);
  await left;
  expect(seen).toEqual(["slow ended"]);
  const deaf: Job = { name: "deaf", run: () => new Promise(() => undefined) };
  const second = start(deaf);
  const gone = second.running[Symbol.asyncDispose]().then(() => seen.push("left"));
  await vi.advanceTimersByTimeAsync(3_400);
  expect(seen).not.toContain("left");
  await vi.advanceTimersByTimeAsync(200);
  await gone;
  expect(seen).toContain("left");
});

it("two jobs of one name are a mistake", () => {
  const job: Job = { name: "twin", run: ended };
  expect(() => start(job, job)).toThrow("two jobs are called twin");
});

it.each<[key: string | undefined, path: string, status: number, code: string | undefined]>([
  [undefined, "/v1/jobs", 401, "unauthenticated"],
  ["wrong", "/v1/jobs", 401, "unauthenticated"],
  ["reader", "/v1/jobs", 403, "forbidden"],
  ["admin", "/v1/jobs", 403, "forbidden"],
  ["operator", "/v1/jobs", 200, undefined],
  ["operator", "/v1/more", 200, undefined],
  [undefined, "/v1/nothing", 401, "unauthenticated"],
  ["operator", "/v1/nothing", 404, "not_found"],
])("with the key %s %s is answered %i", async (key, path, status, code) => {
  const { running } = start({ name: "steady", run: ended });
  const scopes = { reader: ["query"], admin: ["admin"], operator: ["admin"] } as const;
  const authenticate = (given: string) =>
    given in scopes
      ? { tenant: "default", keyId: given, scopes: scopes[given as keyof typeof scopes], operator: given === "operator" }
      : undefined;
  const more = new Hono().get("/v1/more", (c) => c.json({}));
  const { log } = createTelemetry("test", "silent", false);
  const app = withContractErrors(new Hono().route("/", operatorApi(authenticate, [jobRoutes(() => running.report()), more])), log);
  const answer = await app.request(path, key === undefined ? {} : { headers: { "x-api-key": key } });
  expect(answer.status).toBe(status);
  const body = (await answer.json()) as { error?: { code: string }; jobs?: object[] };
  expect(body.error?.code).toBe(code);
  if (path === "/v1/jobs" && status === 200)
    expect(body.jobs).toEqual([{ name: "steady", state: "running", since: expect.stringMatching(/Z$/), failures: 0 }]);
  await running[Symbol.asyncDispose]();
});

it("a key that ends between the headers of a call and its body does nothing any more", async () => {
  let alive = true;
  const authenticate = () => (alive ? { tenant: "default", keyId: "k", scopes: ["admin"] as const, operator: true } : undefined);
  const done: string[] = [];
  const routes = new Hono().post("/v1/do", async (c) => {
    done.push((await readBody(c, 100)).toString());
    return c.json({});
  });
  const { log } = createTelemetry("test", "silent", false);
  const app = withContractErrors(new Hono().route("/", operatorApi(authenticate, [routes])), log);
  const send = (before: () => void) => {
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          before();
          controller.enqueue(Buffer.from("do it"));
          controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    return app.request("/v1/do", { method: "POST", headers: { "x-api-key": "k" }, body, duplex: "half" } as RequestInit);
  };
  expect([(await send(() => undefined)).status, done]).toEqual([200, ["do it"]]);
  const end = (): void => {
    alive = false;
  };
  expect((await send(end)).status).toBe(401);
  expect(done).toEqual(["do it"]);
});

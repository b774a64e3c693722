// D: what people ask, through the query service and as the reader straight at ClickHouse.

import { Agent } from "node:http";
import { post, quantile } from "../../lib/load/client.ts";
import { insertOrder, openTable, startInserter } from "./floor.ts";
import type { BenchOptions } from "./options.ts";
import type { Stage } from "./stage.ts";
import { DATABASE, TENANT } from "./stage.ts";

const RUNS = 7;
/** Records of an insert: what a busy projector makes. */
const PLAN_RECORDS = 100_000;
const PEER_RECORDS = 5_000_000;
const THREADS = 4;

export interface QueryResult {
  readonly name: string;
  readonly sql: string;
  /** Medians, seconds. */
  readonly serviceS: number;
  readonly directS: number;
  readonly rows: number;
  /** The peer's median on 5 million records of another corpus, seconds. */
  readonly peerS: number;
}

export interface Queries {
  readonly records: number;
  readonly comparable: boolean;
  readonly parts: number;
  readonly mergesEnded: boolean;
  readonly results: readonly QueryResult[];
}

interface Asked {
  readonly name: string;
  readonly sql: string;
  readonly peerS: number;
  /** Rows of the answer when it is right; undefined when that depends on the corpus. */
  readonly rows?: number;
}

const quoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

function questions(options: BenchOptions, needle: string): Asked[] {
  const columns = "timestamp, level, service, host, body, attributes";
  const phrase = `hasAllTokens(words, ${quoted(options.phraseWords)}) AND body LIKE ${quoted(`%${options.phrase}%`)}`;
  const user = "attributes['attrs.user_id']";
  const newest = "ORDER BY timestamp DESC LIMIT 100";
  return [
    { name: "count by level", peerS: 0.152, sql: "SELECT level, count() AS n FROM logs GROUP BY level ORDER BY n DESC" },
    {
      name: "needle by request id",
      peerS: 0.006,
      rows: 1,
      sql: `SELECT ${columns} FROM logs WHERE attributes['attrs.request_id'] = ${quoted(needle)}`,
    },
    { name: "newest 100 errors", peerS: 0.435, rows: 100, sql: `SELECT ${columns} FROM logs WHERE level = 'error' ${newest}` },
    { name: "newest 100", peerS: 0.648, rows: 100, sql: `SELECT ${columns} FROM logs ${newest}` },
    { name: "phrase, newest 100", peerS: 0.09, sql: `SELECT ${columns} FROM logs WHERE ${phrase} ${newest}` },
    { name: "phrase, count", peerS: 0.03, rows: 1, sql: `SELECT count() AS n FROM logs WHERE ${phrase}` },
    {
      name: "two rare words",
      peerS: 0.043,
      sql: `SELECT ${columns} FROM logs WHERE hasAllTokens(words, ${quoted(options.rareWords)}) ${newest}`,
    },
    {
      name: "histogram of a service",
      peerS: 0.007,
      sql: `SELECT toStartOfFiveMinutes(timestamp) AS t, count() AS n FROM logs WHERE service = ${quoted(options.service)} GROUP BY t ORDER BY t`,
    },
    {
      name: "top 10 users of errors",
      peerS: 0.075,
      sql: `SELECT ${user} AS user, count() AS n FROM logs WHERE level = 'error' GROUP BY user ORDER BY n DESC LIMIT 10`,
    },
    {
      name: "p99 by service",
      peerS: 0.222,
      sql: "SELECT service, quantile(0.99)(toFloat64OrZero(attributes['attrs.duration_ms'])) AS p99 FROM logs GROUP BY service ORDER BY service",
    },
    { name: "regex, count", peerS: 0.511, rows: 1, sql: `SELECT count() AS n FROM logs WHERE match(body, ${quoted(options.pattern)})` },
  ];
}

export async function queries(options: BenchOptions, env: NodeJS.ProcessEnv): Promise<Queries> {
  const records = options.queryRecords;
  await using stage = await openTable(options, env, ["query"]);
  let needle: string;
  {
    await using inserter = await startInserter(options, records);
    await inserter.go(insertOrder(stage, [PLAN_RECORDS]));
    needle = (JSON.parse(inserter.prepared.middle) as { attrs: { request_id: string } }).attrs.request_id;
  }
  await stage.searchable(records, 1_000);
  const mergesEnded = await stage.settled();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const results: QueryResult[] = [];
  try {
    await requireAll(stage, agent, records);
    for (const asked of questions(options, needle)) results.push(await measure(stage, agent, asked));
  } finally {
    agent.destroy();
  }
  const parts = await stage.ask<{ n: number }>(
    `SELECT count() AS n FROM system.parts WHERE database = '${DATABASE}' AND table = 'logs' AND active`,
  );
  return { records, comparable: records === PEER_RECORDS, parts: parts[0]!.n, mergesEnded, results };
}

/** @throws Error when the query service does not see every record */
async function requireAll(stage: Stage, agent: Agent, records: number): Promise<void> {
  const { url, headers } = serviceOf(stage);
  const answer = await post(agent, url, headers, Buffer.from("SELECT toUInt32(count()) AS n FROM logs"));
  const text = answer.body.toString("utf8").trim();
  if (text !== `{"n":${records}}`) throw new Error(`the query service answers ${text} to count(), not ${records}`);
}

function serviceOf(stage: Stage): { url: string; headers: Readonly<Record<string, string>> } {
  return { url: `${stage.services.query!.url}/v1/query`, headers: { Authorization: `Bearer ${stage.key}`, "Content-Type": "text/plain" } };
}

async function measure(stage: Stage, agent: Agent, asked: Asked): Promise<QueryResult> {
  const { url, readerUser, readerPassword } = stage.clickhouse;
  const parameters = { database: DATABASE, log_comment: TENANT, default_format: "JSONEachRow", max_threads: String(THREADS) };
  const direct = `${url}/?${new URLSearchParams(parameters)}`;
  const credentials = { "X-ClickHouse-User": readerUser, "X-ClickHouse-Key": readerPassword };
  const service = serviceOf(stage);
  const viaService = await medianOf(agent, service.url, service.headers, asked);
  const viaReader = await medianOf(agent, direct, credentials, asked);
  const { name, sql, peerS } = asked;
  return { name, sql, peerS, serviceS: viaService.seconds, directS: viaReader.seconds, rows: viaService.rows };
}

/** One warm-up, then the median of the runs. @throws Error on a wrong answer */
async function medianOf(
  agent: Agent,
  url: string,
  headers: Readonly<Record<string, string>>,
  asked: Asked,
): Promise<{ seconds: number; rows: number }> {
  const times: number[] = [];
  let rows = 0;
  for (let run = 0; run <= RUNS; run++) {
    const begin = performance.now();
    const answer = await post(agent, url, headers, Buffer.from(asked.sql));
    if (run > 0) times.push((performance.now() - begin) / 1_000);
    if (answer.status !== 200) throw new Error(`"${asked.name}" was answered ${answer.status}: ${answer.body.toString("utf8", 0, 500)}`);
    rows = answer.body.toString("utf8").split("\n").length - 1;
    if (asked.rows !== undefined && rows !== asked.rows) throw new Error(`"${asked.name}" has ${rows} rows, not ${asked.rows}`);
  }
  return { seconds: quantile(times, 0.5), rows };
}

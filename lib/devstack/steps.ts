// What `npm start` says while it works: each step as it begins, signs of life while it lasts, and its result.

const SIGN_OF_LIFE_MS = 2_000;

export type Say = (message: string) => void;

/** Runs `work` as the step `name`; `work` returns what to add to the result's line. A failed step is said, and thrown on. */
export async function step(say: Say, name: string, work: () => Promise<string>): Promise<void> {
  const started = performance.now();
  const seconds = (): string => `${((performance.now() - started) / 1_000).toFixed(1)} s`;
  say(`${name} ...`);
  const timer = setInterval(() => say(`${name}: still at it after ${seconds()}`), SIGN_OF_LIFE_MS);
  try {
    const result = await work();
    say(`${name}: ${result} (${seconds()})`);
  } catch (error) {
    say(`${name}: failed after ${seconds()}`);
    throw error;
  } finally {
    clearInterval(timer);
  }
}

export interface Contract {
  readonly ingestUrl: string;
  readonly queryUrl: string;
  readonly natsUrl: string;
  readonly tenant: string;
  readonly key: string;
  readonly clickhouse: { readonly url: string; readonly user: string; readonly password: string };
}

/** Three commands to copy: send a line and keep its id, ask for it, see where it is. */
export function firstCommands({ ingestUrl, queryUrl, key }: Contract): [send: string, ask: string, receipt: string] {
  const auth = `-H 'Authorization: Bearer ${key}'`;
  const line = `{"level":"info","service":"demo","message":"hello"}`;
  return [
    `id=$(curl -sS ${ingestUrl}/v1/ingest ${auth} -d '${line}' | sed 's/.*"id":"\\([^"]*\\)".*/\\1/') && echo $id`,
    `curl -sS ${queryUrl}/v1/query ${auth} -H 'Content-Type: text/plain' -d "SELECT time, level, message FROM logs WHERE service = 'demo' ORDER BY time DESC LIMIT 5"`,
    `curl -sS ${queryUrl}/v1/receipts/$id ${auth}`,
  ];
}

/** What is said when everything is up. */
export function welcome(contract: Contract, dir: string): string {
  const [send, ask, receipt] = firstCommands(contract);
  const { ingestUrl, queryUrl, natsUrl, tenant, key } = contract;
  return `
  ingest  ${ingestUrl}
  query   ${queryUrl}
  NATS    ${natsUrl} (the key is the token; publish to ingest.${tenant})
  key     ${key}
  folder  ${dir}

  send a line:      ${send}
  ask for it:       ${ask}
  see its receipt:  ${receipt}

  Ctrl-C stops everything; the next start finds the data.
`;
}

// What the services of the corpus say: lines in the manner of well-known programs, written for relog.
//
// Promises: each service has lines for every class; the phrase and the rare words of `PLANTED` stand where it says, so that
// queries of the bench have answers.

import type { Random } from "./random.ts";

export type Line = (random: Random) => string;

export interface Service {
  readonly name: string;
  /** Share of the records, relative to the others. */
  readonly weight: number;
  readonly calm: readonly Line[];
  readonly warn: readonly Line[];
  readonly error: readonly Line[];
}

/** What a bench may look for, and where it is. */
export const PLANTED = {
  phrase: { service: "sshd", text: "Failed password" },
  /** Each alone in about 20 of a million records, both in about 5. */
  rareWords: { service: "kubelet", words: ["stonith", "brownout"] },
  /** A pattern with about 1% of the records. */
  pattern: "port [0-9]{4,5} ssh2$",
} as const;

const USERS = ["root", "admin", "deploy", "postgres", "backup", "git", "ubuntu", "jenkins", "oracle", "test"];
const PATHS = [
  "/api/v2/orders",
  "/api/v2/cart",
  "/api/v1/users/profile",
  "/static/app.js",
  "/search",
  "/login",
  "/health",
  "/api/v2/invoices",
];
const AGENTS = [
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
  "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile Safari/604.1",
  "okhttp/4.12.0",
  "curl/8.6.0",
];
const TABLES = ["orders", "order_lines", "customers", "payments", "sessions", "inventory"];
const PODS = ["checkout", "catalog", "payments", "mailer", "search", "recommender"];
const CLASSES = ["OrderService", "PaymentGateway", "CartRepository", "TokenFilter", "StockClient", "MailQueue"];

const ip = (r: Random): string => `${r.between(10, 203)}.${r.below(256)}.${r.below(256)}.${r.between(1, 254)}`;
const port = (r: Random): number => r.between(1_024, 65_535);
const pod = (r: Random): string => `${r.pick(PODS)}-${r.hex(8)}-${r.hex(5)}`;
const uuid = (r: Random): string => `${r.hex(8)}-${r.hex(4)}-4${r.hex(3)}-a${r.hex(3)}-${r.hex(8)}${r.hex(4)}`;
const access = (r: Random, status: number): string =>
  `${ip(r)} - - "${r.pick(["GET", "GET", "GET", "POST", "PUT"])} ${r.pick(PATHS)}/${r.below(100_000)} HTTP/1.1" ${status} ${r.skewed(200_000, 3)} "-" "${r.pick(AGENTS)}"`;
const thread = (r: Random): string =>
  `[http-nio-8080-exec-${r.between(1, 200)}] com.example.shop.checkout.internal.${r.pick(CLASSES)} tx=${r.hex(8)}`;
const session = (r: Random): string => `[${r.below(4_194_304)}-${r.below(99)}] shop@shop,app=${r.pick(PODS)},client=${ip(r)}`;
const uptime = (r: Random): string => `[${r.below(9_000_000)}.${String(r.below(1_000_000)).padStart(6, "0")}]`;

export const SERVICES: readonly Service[] = [
  {
    name: "nginx",
    weight: 22,
    calm: [(r) => access(r, r.pick([200, 200, 200, 200, 201, 204, 301, 304]))],
    warn: [
      (r) => access(r, r.pick([400, 401, 403, 404, 404, 429])),
      (r) =>
        `*${r.below(1e9)} a client request body is buffered to a temporary file /var/lib/nginx/body/00${r.below(1e8)}, client: ${ip(r)}, server: shop.example.com`,
    ],
    error: [
      (r) =>
        `*${r.below(1e9)} upstream timed out (110: Connection timed out) while reading response header from upstream, client: ${ip(r)}, upstream: "http://${ip(r)}:8080${r.pick(PATHS)}"`,
      (r) =>
        `*${r.below(1e9)} connect() failed (111: Connection refused) while connecting to upstream, client: ${ip(r)}, server: shop.example.com`,
    ],
  },
  {
    name: PLANTED.phrase.service,
    weight: 11,
    calm: [
      (r) => `Accepted publickey for ${r.pick(USERS)} from ${ip(r)} port ${port(r)} ssh2: ED25519 SHA256:${r.hex(8)}${r.hex(8)}${r.hex(8)}`,
      (r) => `pam_unix(sshd:session): session opened for user ${r.pick(USERS)}(uid=${r.below(65_536)}) by (uid=0)`,
      (r) => `Received disconnect from ${ip(r)} port ${port(r)}:11: disconnected by user`,
      (r) => `Connection closed by ${ip(r)} port ${port(r)} [preauth]`,
    ],
    warn: [
      (r) => `${PLANTED.phrase.text} for ${r.pick(USERS)} from ${ip(r)} port ${port(r)} ssh2`,
      (r) => `${PLANTED.phrase.text} for invalid user ${r.pick(USERS)}${r.below(1_000)} from ${ip(r)} port ${port(r)} ssh2`,
      (r) => `Invalid user ${r.pick(USERS)}${r.below(1_000)} from ${ip(r)} port ${port(r)}`,
    ],
    error: [
      (r) => `error: maximum authentication attempts exceeded for ${r.pick(USERS)} from ${ip(r)} port ${port(r)} ssh2 [preauth]`,
      (r) => `fatal: Timeout before authentication for ${ip(r)} port ${port(r)}, pid = ${r.below(4_194_304)}`,
    ],
  },
  {
    name: "kernel",
    weight: 7,
    calm: [
      (r) =>
        `${uptime(r)} audit: type=1400 audit(${r.below(2e9)}.${r.below(1_000)}:${r.below(1e6)}): apparmor="ALLOWED" operation="open" pid=${r.below(4_194_304)} comm="node"`,
      (r) => `${uptime(r)} eth0: Link is Up - ${r.pick([1, 10, 25])}Gbps/Full - flow control rx/tx`,
      (r) => `${uptime(r)} EXT4-fs (nvme${r.below(8)}n1p${r.below(4)}): mounted filesystem ${uuid(r)} r/w with ordered data mode`,
    ],
    warn: [
      (r) => `${uptime(r)} TCP: request_sock_TCP: Possible SYN flooding on port ${port(r)}. Sending cookies.`,
      (r) => `${uptime(r)} CPU${r.below(128)}: Package temperature above threshold, cpu clock throttled (total events = ${r.below(1e6)})`,
    ],
    error: [
      (r) =>
        `${uptime(r)} Out of memory: Killed process ${r.below(4_194_304)} (java) total-vm:${r.below(4e7)}kB, anon-rss:${r.below(2e7)}kB, oom_score_adj:${r.below(1_000)}`,
      (r) => `${uptime(r)} blk_update_request: I/O error, dev nvme${r.below(8)}n1, sector ${r.below(1e9)} op 0x0:(READ) flags 0x80700`,
    ],
  },
  {
    name: "shop",
    weight: 24,
    calm: [
      (r) => `${thread(r)}: order ${uuid(r)} placed, ${r.between(1, 40)} lines, total ${r.below(1_000)}.${r.between(10, 99)} EUR`,
      (r) => `${thread(r)}: cache hit ratio ${r.below(100)}.${r.below(100)}% over ${r.below(100_000)} lookups, ${r.below(5_000)} evictions`,
      (r) => `${thread(r)}: stock of article ${r.below(1e7)} reserved in warehouse ${r.below(90)}, ${r.below(500)} left`,
      (r) => `${thread(r)}: token for session ${r.hex(8)}${r.hex(8)} refreshed, expires in ${r.between(60, 3_600)} s`,
    ],
    warn: [
      (r) => `${thread(r)}: slow call to stock-service took ${r.between(500, 9_000)} ms, retry ${r.between(1, 3)} of 3`,
      (r) => `${thread(r)}: payment ${uuid(r)} declined by issuer, reason ${r.between(51, 99)}`,
    ],
    error: [
      (r) =>
        `${thread(r)}: java.net.SocketTimeoutException: Read timed out after ${r.between(1_000, 30_000)} ms at com.example.shop.${r.pick(CLASSES)}.call(${r.pick(CLASSES)}.java:${r.between(20, 900)})`,
      (r) =>
        `${thread(r)}: java.lang.IllegalStateException: order ${uuid(r)} is in state ${r.pick(["PAID", "SHIPPED", "CANCELLED"])}, expected NEW`,
    ],
  },
  {
    name: PLANTED.rareWords.service,
    weight: 14,
    calm: [
      (r) => `"Started container" pod="shop/${pod(r)}" containerID="${r.hex(8)}${r.hex(8)}${r.hex(8)}" pid=${r.below(4_194_304)}`,
      (r) => `"SyncLoop (PLEG): event for pod" pod="shop/${pod(r)}" event={"ID":"${uuid(r)}","Type":"ContainerStarted"}`,
      (r) =>
        `"Successfully pulled image" image="registry.example.com/shop/${r.pick(PODS)}:${r.between(1, 9)}.${r.below(90)}.${r.below(20)}" duration="${r.below(90)}.${r.below(1_000)}s"`,
    ],
    warn: [
      (r) =>
        `"Probe failed" probeType="Readiness" pod="shop/${pod(r)}" probeResult="failure" output="HTTP probe failed with statuscode: ${r.pick([500, 502, 503])}"`,
      (r) => `"Eviction manager: attempting to reclaim" resourceName="memory" available="${r.below(900)}Mi" threshold="1Gi"`,
    ],
    error: [
      (r) =>
        `"Error syncing pod, skipping" err="back-off ${r.pick([10, 20, 40, 80])}s restarting failed container" pod="shop/${pod(r)}" podUID="${uuid(r)}"`,
      (r) =>
        `"Failed to pull image" err="rpc error: code = DeadlineExceeded desc = context deadline exceeded" image="registry.example.com/shop/${r.pick(PODS)}:${r.below(90)}"`,
    ],
  },
  {
    name: "postgres",
    weight: 12,
    calm: [
      (r) =>
        `${session(r)} duration: ${r.skewed(9_000, 4)}.${r.below(1_000)} ms  statement: SELECT * FROM ${r.pick(TABLES)} WHERE id = ${r.below(1e8)} FOR UPDATE`,
      (r) =>
        `${session(r)} checkpoint complete: wrote ${r.below(100_000)} buffers (${r.below(100)}.${r.below(10)}%); 0 WAL file(s) added, ${r.below(40)} recycled; write=${r.below(300)}.${r.below(1_000)} s`,
      (r) =>
        `${session(r)} connection authorized: user=shop database=shop application_name=${r.pick(PODS)} SSL enabled (protocol=TLSv1.3, bits=256)`,
    ],
    warn: [
      (r) =>
        `${session(r)} process ${r.below(4_194_304)} still waiting for ShareLock on transaction ${r.below(2e9)} after ${r.between(1_000, 9_000)}.${r.below(1_000)} ms`,
      (r) => `${session(r)} could not receive data from client: Connection reset by peer (${ip(r)}:${port(r)})`,
    ],
    error: [
      (r) =>
        `${session(r)} deadlock detected: process ${r.below(4_194_304)} waits for ShareLock on transaction ${r.below(2e9)}; blocked by process ${r.below(4_194_304)}`,
      (r) =>
        `${session(r)} duplicate key value violates unique constraint "${r.pick(TABLES)}_pkey", Key (id)=(${r.below(1e8)}) already exists.`,
    ],
  },
  {
    name: "haproxy",
    weight: 6,
    calm: [
      (r) =>
        `${ip(r)}:${port(r)} https~ shop/app${r.between(1, 12)} 0/0/${r.below(5)}/${r.skewed(2_000, 3)}/${r.skewed(2_500, 3)} 200 ${r.below(90_000)} - - ---- ${r.below(900)}/${r.below(900)}/${r.below(90)}/${r.below(20)}/0 0/0`,
    ],
    warn: [
      (r) =>
        `Server shop/app${r.between(1, 12)} is going DOWN for maintenance, ${r.below(12)} active and 0 backup servers left, ${r.below(400)} sessions active`,
    ],
    error: [
      (r) =>
        `Server shop/app${r.between(1, 12)} is DOWN, reason: Layer4 timeout, check duration: ${r.between(2_000, 9_000)}ms. ${r.below(12)} active servers left`,
    ],
  },
  {
    name: "cron",
    weight: 4,
    calm: [
      (r) => `(${r.pick(USERS)}) CMD (/usr/local/bin/rotate --keep ${r.below(90)} --target /var/backups/${r.pick(TABLES)})`,
      (r) => `job ${r.below(1e6)} finished in ${r.below(900)}.${r.below(100)} s, exit status 0, ${r.below(1e6)} files examined`,
    ],
    warn: [(r) => `job ${r.below(1e6)} skipped: the run before, pid ${r.below(4_194_304)}, has not ended`],
    error: [
      (r) => `job ${r.below(1e6)} failed with exit status ${r.between(1, 127)} after ${r.below(900)} s; output mailed to ${r.pick(USERS)}`,
    ],
  },
];

const RARE_EACH = 20;
const RARE_BOTH = 5;

/** The rare line of a record, when it is one. `dice` is below a million. */
export function rareLine(dice: number, random: Random): string | undefined {
  const [first, second] = PLANTED.rareWords.words;
  const node = `node="n${random.below(64)}" epoch=${random.below(1e6)}`;
  if (dice < RARE_BOTH) return `"Fencing after partial outage" action="${first}" cause="${second}" ${node}`;
  if (dice < RARE_BOTH + RARE_EACH) return `"Fencing device registered" agent="${first}" ${node}`;
  if (dice < RARE_BOTH + 2 * RARE_EACH) return `"Voltage drop seen" cause="${second}" ${node}`;
  return undefined;
}

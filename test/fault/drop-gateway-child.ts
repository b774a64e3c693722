// A gateway that drops everything, as a process of its own, so that it can be killed.

import { systemClock } from "../../lib/base/clock.ts";
import { serveHttp } from "../../lib/base/http.ts";
import { followParent } from "../../lib/base/parent-pipe.ts";
import { QuotaGateway } from "./over-quota-kit.ts";

const { NATS_URL, NATS_USER, NATS_PASSWORD, PORT } = process.env as Record<string, string>;
followParent(() => process.exit(0));
const engines = { natsUrl: NATS_URL!, natsUser: NATS_USER!, natsPassword: NATS_PASSWORD! };
const gateway = await QuotaGateway.open(engines, { gapIntervalMs: 500 });
gateway.decision.is("drop");
await serveHttp({ app: gateway.app }, "127.0.0.1", Number(PORT), "PORT");
process.stdout.write(`${JSON.stringify({ message: "serving", at: systemClock.now() })}\n`);

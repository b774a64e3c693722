// A site for commands that project: the parts that cmd/parts/projection.ts puts workers together from.

import { randomUUID } from "node:crypto";
import { hostname, setPriority } from "node:os";
import { archiveStoreFault } from "../../lib/archive/settings.ts";
import { systemClock } from "../../lib/base/clock.ts";
import type { Values } from "../../lib/base/config.ts";
import { RelogError } from "../../lib/base/errors.ts";
import { Health } from "../../lib/base/health.ts";
import { createTelemetry } from "../../lib/base/telemetry.ts";
import type { Io } from "../../lib/cli/command.ts";
import type { Retention, retentionSettings } from "../../lib/event/retention.ts";
import { readRetention, retentionFault, sameRetention } from "../../lib/event/retention.ts";
import { projectorMetrics } from "../../lib/projector/metrics.ts";
import { rehydrateFault, rehydrateSettings } from "../../lib/rehydrate/job.ts";
import { generationsRegister } from "../../lib/streams/generations.ts";
import { readPointer } from "../parts/pointer.ts";
import type { Projection, siteSettings } from "../parts/projection.ts";
import { libraryOf, projectionSettings } from "../parts/projection.ts";
import { rebuildSettings } from "../parts/rebuild.ts";
import { openDirectory, policyOf } from "../parts/tenants.ts";
import type { Site } from "./site.ts";
import { openSite } from "./site.ts";

const settings = { ...projectionSettings, ...rebuildSettings, ...rehydrateSettings };
const open = (io: Io) => openSite(io, { more: settings, relations: [retentionFault, archiveStoreFault, rehydrateFault] });

export interface CommandProjection extends AsyncDisposable {
  readonly parts: Projection;
  readonly values: Awaited<ReturnType<typeof open>>["values"];
}

/** Whoever runs a command by hand shares the machine with services that are in a hurry. */
const NICE = 10;

export interface ProjectionOptions {
  /** False where the policy of the tables does not matter: else another one here than the projectors have is refused. */
  readonly retention?: boolean;
  /** False for what touches no generation: else a register of generations that was lost is refused. */
  readonly register?: boolean;
}

/**
 * Opens a site to project on it: the one that `name` says, else RELOG_SITE.
 * @throws as openSite, RelogError bad_request as the options say
 */
export async function openProjection(io: Io, name?: string, options: ProjectionOptions = {}): Promise<CommandProjection> {
  setPriority(NICE);
  const site = await open(name === undefined ? io : { ...io, env: { ...io.env, RELOG_SITE: name } });
  return await project(site, options).catch(closing(site));
}

/** Lets go of the site of work that could not begin. */
export const closing =
  (site: AsyncDisposable) =>
  async (error: unknown): Promise<never> => {
    await site[Symbol.asyncDispose]();
    throw error;
  };

type Agreeing = Pick<Site<Values<typeof retentionSettings & typeof siteSettings>>, "nc" | "clickhouse" | "values" | "env">;

/** The policy to work with. @throws RelogError bad_request when it differs from the projectors', or the register is lost */
export async function agreed({ nc, clickhouse, values, env }: Agreeing, { retention = true }: ProjectionOptions = {}): Promise<Retention> {
  const { value, lost } = await readPointer(generationsRegister(nc, values.site), clickhouse, values.site);
  if (lost !== undefined) throw new RelogError("bad_request", lost);
  return retention ? sameRetention(env, readRetention(values), value.retention) : readRetention(values);
}

async function project(site: Awaited<ReturnType<typeof open>>, options: ProjectionOptions): Promise<CommandProjection> {
  const { nc, clickhouse, values, log } = site;
  const retention = (options.register ?? true) ? await agreed(site, options) : readRetention(values);
  const tenants = await openDirectory(nc);
  const parts: Projection = {
    nc,
    clickhouse,
    settings: values,
    policy: policyOf(tenants.directory, tenants.reader, { site: values.site, settings: () => retention }),
    owner: `${hostname()}/${process.pid}/${randomUUID()}`,
    log,
    health: new Health(),
    metrics: projectorMetrics(createTelemetry("relog", "silent", false), systemClock.now),
    library: libraryOf(values),
  };
  return {
    parts,
    values,
    async [Symbol.asyncDispose]() {
      await tenants[Symbol.asyncDispose]();
      await site[Symbol.asyncDispose]();
    },
  };
}

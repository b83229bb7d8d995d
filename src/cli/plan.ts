/** `lockstep plan FILE`, for a run file or a job. */
import { createOrtEngine } from "../engine/index.ts";
import { type AskedParallel, statedIn } from "../parallel/index.ts";
import {
  describePlan,
  type PlanOptions,
  planAsJson,
  type Run,
  settleMicroBatches,
  writePlan,
} from "../run/index.ts";
import { printable } from "../telemetry/index.ts";
import { diskFor, diskRoom, memoryLimit } from "../train/index.ts";
import { readLinks } from "./links.ts";
import { openTarget } from "./target.ts";

export interface PlanFlags extends AskedParallel {
  readonly workers: number;
  readonly rank: number;
  readonly machines: number;
  readonly gflops: number;
  readonly bandwidth: number;
  readonly latency: number;
  readonly links?: string;
  readonly memory?: number;
  readonly json?: boolean;
  readonly bucket?: number;
  readonly to?: string;
}

export async function planCommand(file: string, flags: PlanFlags): Promise<void> {
  const { workers, rank, machines, gflops, bandwidth, latency, bucket } = flags;
  const links = flags.links === undefined ? {} : readLinks(flags.links);
  const between = links.between ?? { bandwidth, latency };
  const run = settleMicroBatches((await openTarget(file, statedIn(flags))).run);
  const options = {
    workers,
    rank,
    machines,
    speeds: {
      flopsPerSecond: (links.gflops ?? gflops) * 1e9,
      bytesPerSecond: between.bandwidth * 1e9,
      latency: between.latency * 1e-6,
    },
    memorySpeed: links.memory && links.memory * 1e9,
    within: links.within && {
      bytesPerSecond: links.within.bandwidth * 1e9,
      latency: links.within.latency * 1e-6,
    },
    // Of workers on other machines, only what is stated is known.
    memory: flags.memory ?? (machines === 1 ? memoryLimit() / workers : undefined),
    disk: machines === 1 ? diskFor(diskRoom(process.cwd()), workers) : undefined,
    bucketBytes: bucket,
  };
  const json = flags.json === true;
  // Written first, so that nothing is printed of a plan that is refused.
  const told = flags.to === undefined ? [] : await written(run, options, flags.to);
  process.stdout.write(json ? planAsJson(run, options) : printable(describePlan(run, options)));
  const tell = json ? console.error : console.log;
  for (const line of told) tell(printable(line));
}

async function written(run: Run, options: PlanOptions, file: string): Promise<string[]> {
  const engine = createOrtEngine({ threads: 1 });
  try {
    return await writePlan(run, options, { file, engine });
  } finally {
    await engine.close();
  }
}

/** `lockstep resume DIR`: the command that started a run, with `--resume`. */
import type { AskedParallel } from "../parallel/index.ts";
import type { Changeable } from "../run/index.ts";
import { printable } from "../telemetry/index.ts";
import { commandToResume } from "./command.ts";
import { goTo, openRecorded, recordedCommand } from "./recorded.ts";
import type { TrainFlags } from "./target.ts";
import { trainTarget } from "./train.ts";
import type { WorkersAsked } from "./workers.ts";

export interface ResumeFlags extends AskedParallel {
  readonly steps?: number;
  readonly workers?: WorkersAsked;
  readonly minWorkers?: number;
  readonly maxWorkers?: number;
  readonly threads?: number;
  readonly change?: readonly Changeable[];
  readonly token?: string;
}

export async function resumeCommand(dir: string, flags: ResumeFlags): Promise<void> {
  const again = commandToResume(process.argv, process.env, process.cwd());
  const { checkpoints } = await openRecorded(dir);
  const recorded = await recordedCommand(dir, checkpoints);
  goTo(recorded);
  const { out } = recorded;
  console.log(printable(`${recorded.file}, continued in ${out}`));
  const before = recordedBeside(flags, recorded.flags);
  await trainTarget(recorded.file, { ...before, ...flags, out, resume: true }, again);
}

/**
 * What was recorded, without what the given flags state anew: axes and a ZeRO stage are one
 * statement, and axes and limits are of one number of workers.
 */
function recordedBeside(flags: ResumeFlags, recorded: TrainFlags): TrainFlags {
  const anew: string[] = [];
  if (flags.parallel !== undefined || flags.zero !== undefined) {
    anew.push("parallel", "zero", "attention");
  }
  if (flags.workers !== undefined && flags.workers !== recorded.workers) {
    anew.push("parallel", "attention", "minWorkers", "maxWorkers");
  }
  return Object.fromEntries(Object.entries(recorded).filter(([name]) => !anew.includes(name)));
}

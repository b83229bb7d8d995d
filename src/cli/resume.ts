/** `lockstep resume DIR`: the command that started a run, with `--resume`. */
import type { ParallelOptions } from "../parallel/index.ts";
import type { Changeable } from "../run/index.ts";
import { printable } from "../telemetry/index.ts";
import { commandToResume } from "./command.ts";
import { goTo, openRecorded, recordedCommand } from "./recorded.ts";
import { trainTarget } from "./train.ts";
import type { WorkersAsked } from "./workers.ts";

export interface ResumeFlags extends ParallelOptions {
  readonly steps?: number;
  readonly workers?: WorkersAsked;
  readonly threads?: number;
  readonly change?: readonly Changeable[];
}

export async function resumeCommand(dir: string, flags: ResumeFlags): Promise<void> {
  const again = commandToResume(process.argv, process.env, process.cwd());
  const { checkpoints } = await openRecorded(dir);
  const recorded = await recordedCommand(dir, checkpoints);
  goTo(recorded);
  const { out } = recorded;
  console.log(printable(`${recorded.file}, continued in ${out}`));
  await trainTarget(recorded.file, { ...recorded.flags, ...flags, out, resume: true }, again);
}

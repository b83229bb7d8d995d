/** `lockstep export DIR --to FILE`: a model out of a checkpoint. */
import { resolve } from "node:path";
import { LockstepError } from "../errors.ts";
import {
  type CheckpointHead,
  chooseCheckpoint,
  exportCheckpoint,
  openStep,
  type RunFolder,
} from "../run/index.ts";
import { printable } from "../telemetry/index.ts";
import { goTo, openRecorded, recordedCommand, requireStep, stepsOf } from "./recorded.ts";
import { openTarget, type Target, type TargetFlags } from "./target.ts";

export interface ExportFlags {
  readonly to: string;
  readonly step?: number;
  readonly run?: string;
}

export async function exportCommand(dir: string, flags: ExportFlags): Promise<void> {
  const to = resolve(flags.to);
  const folder = await openRecorded(dir);
  const head = await headOf(dir, folder, flags.step);
  const { run } = await targetOf(dir, folder, flags.run);
  const { notes } = await exportCheckpoint(run, head, to);
  const lines = [`${flags.to}: the model after step ${head.step}`, ...notes];
  console.log(printable(lines.join("\n")));
}

async function headOf(
  dir: string,
  folder: RunFolder,
  step: number | undefined,
): Promise<CheckpointHead> {
  if (step !== undefined) {
    requireStep(await stepsOf(dir, folder.checkpoints), step);
    return openStep(folder.checkpoints, step);
  }
  const { head, unusable } = await chooseCheckpoint(folder);
  for (const { error } of unusable) {
    const [why] = error.message.split("\n");
    console.error(printable(`${why} The checkpoint before is taken.`));
  }
  return head;
}

/** The run that wrote the checkpoints: it knows the forward graph and the names of a state dict. */
async function targetOf(
  dir: string,
  folder: RunFolder,
  given: string | undefined,
): Promise<Target> {
  if (given !== undefined) return openTarget(given, {});
  try {
    const recorded = await recordedCommand(dir, folder.checkpoints);
    goTo(recorded);
    return await openTarget(recorded.file, targetFlags(recorded.flags));
  } catch (error) {
    if (!(error instanceof LockstepError) || error.code !== "CHECKPOINT") throw error;
    throw new LockstepError("CHECKPOINT", error.message.split("\n")[0] ?? "", {
      hint: "Name the run file or the job of the run: --run FILE.",
      cause: error,
    });
  }
}

/** The options that the model depends on. */
function targetFlags({ steps, batch, seed }: TargetFlags): TargetFlags {
  const known = Object.entries({ steps, batch, seed }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(known);
}

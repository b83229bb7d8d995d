/** `lockstep job FILE`, and the jobs that are made for workers and hosts. */
import { parse, resolve } from "node:path";
import { LockstepError } from "../errors.ts";
import { type MadeJob, makeJob, writeJob } from "../job/index.ts";
import { printable } from "../telemetry/index.ts";
import { stopOnSignals } from "./signals.ts";
import { openTarget, type Target, type TargetFlags } from "./target.ts";

export interface JobFlags extends TargetFlags {
  readonly out: string;
}

export async function jobCommand(file: string, flags: JobFlags): Promise<void> {
  const { out } = flags;
  const target = await openTarget(file, flags);
  if (target.job !== undefined) {
    throw new LockstepError("INVALID_OPTION", `"${file}" is already a job.`, {
      hint: "Name a run file.",
    });
  }
  const stop = stopOnSignals(() => undefined);
  try {
    const { head, files } = await jobFrom(target, rootFor(flags), stop.signal);
    await writeJob(out, files);
    const bytes = [...files.values()].flat().reduce((sum, piece) => sum + piece.byteLength, 0);
    const lines = [
      `${head.name}: a job of ${files.size} files, ${(bytes / 1e6).toFixed(1)} MB, in ${out}`,
      `data: ${head.data.holds?.data ?? notHere}`,
      `run it: lockstep train ${out}`,
    ];
    console.log(printable(lines.join("\n")));
  } finally {
    stop.end();
  }
}

const notHere = "not on this machine, so it cannot show whether that of others is right";
/**
 * The note that is shown when a run on hosts begins and its data is not on the launcher's machine.
 */
export const DATA_NOT_HERE = `The data is ${notHere}; the hosts compare theirs with each other.`;

/**
 * The folder that the places of the data are relative to in a job for other machines. Throws
 * INVALID_OPTION for several.
 */
export function rootFor({ dataRoot = [process.cwd()] }: Pick<TargetFlags, "dataRoot">): string {
  const [root = ".", ...others] = dataRoot;
  if (others.length === 0) return resolve(root);
  throw new LockstepError(
    "INVALID_OPTION",
    "A job names its data relative to one folder: give one --data-root.",
  );
}

/** Makes the job of a run file for other machines. */
export function jobFrom(
  { run, baseDir }: Target,
  root: string,
  signal: AbortSignal,
): Promise<MadeJob> {
  return makeJob(run, { baseDir, root, mayLackData: true, signal });
}

/** Makes the job of a run file for workers of this machine: its data may lie anywhere on it. */
export function jobHere({ run, baseDir }: Target, signal: AbortSignal): Promise<MadeJob> {
  return makeJob(run, { baseDir, root: rootHere(baseDir), signal });
}

export function rootHere(baseDir: string): string {
  return parse(baseDir).root;
}

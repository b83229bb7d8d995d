/** The argument of a command: a run file, which is code, or the folder of a job, which is data. */
import { existsSync, statSync } from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { escapePath } from "tinyglobby";
import { type DataSource, text } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { isJobFolder, type JobFolder, openJob, readJobFolder } from "../job/index.ts";
import { type AskedParallel, statedIn } from "../parallel/index.ts";
import {
  type Changeable,
  type Fingerprint,
  loadRun,
  overrideRun,
  type Run,
  type RunOverrides,
} from "../run/index.ts";
import type { WorkersAsked } from "./workers.ts";

export interface TargetFlags extends AskedParallel {
  readonly steps?: number;
  readonly batch?: number;
  readonly seed?: number;
  readonly checkpointEvery?: number;
  readonly keepLast?: number;
  readonly keepEvery?: number;
  readonly excludeBelow?: number;
  readonly checkpoints?: string;
  readonly data?: readonly string[];
  readonly dataRoot?: readonly string[];
}

/** The flags of `lockstep train`. */
export interface TrainFlags extends TargetFlags {
  readonly workers?: WorkersAsked;
  readonly minWorkers?: number;
  readonly maxWorkers?: number;
  /** The addresses of the agents; `workers` is then the number of workers on each. */
  readonly hosts?: readonly string[];
  /** Where machines that join the run are waited for: [host:]port. */
  readonly listen?: string;
  /** Where the state of the run's leader is kept. */
  readonly state?: string;
  readonly token?: string;
  readonly tls?: boolean;
  readonly threads?: number;
  readonly out?: string;
  readonly resume?: boolean;
  readonly change?: readonly Changeable[];
  readonly anew?: boolean;
  readonly dump?: string;
}

export interface Target {
  /** The run, in which the options of the command line replace its own. */
  readonly run: Run;
  /** The folder that relative paths and globs of the data start from. */
  readonly baseDir: string;
  /** The folders below which the data must lie. Undefined: anywhere. */
  readonly roots: readonly string[] | undefined;
  /** The fingerprint that the data must have. Undefined: any. */
  readonly holds: Fingerprint | undefined;
  /** The job; undefined for a run file. */
  readonly job: JobFolder | undefined;
}

/** Throws INVALID_OPTION, and the errors of loading a run file or reading a job. */
export async function openTarget(path: string, flags: TargetFlags): Promise<Target> {
  return isJobFolder(path) ? openJobAt(path, flags) : openRunFile(path, flags);
}

async function openRunFile(path: string, flags: TargetFlags): Promise<Target> {
  const loaded = await loadRun(path);
  const { steps, batch, seed, excludeBelow } = flags;
  const data = flags.data && textOf(flags.data, loaded);
  const run = overrideRun(loaded, {
    steps,
    batch,
    seed,
    data,
    excludeBelow,
    ...keepingOf(flags),
    ...statedIn(flags),
  });
  const baseDir = resolve(dirname(path));
  return { run, baseDir, roots: undefined, holds: undefined, job: undefined };
}

function openJobAt(path: string, flags: TargetFlags): Target {
  const { steps, seed, batch, data, excludeBelow } = flags;
  if (batch !== undefined || data !== undefined) {
    throw new LockstepError(
      "INVALID_OPTION",
      "--batch and --data are for run files: a job contains the graphs of its batch, and names its data.",
      { hint: "Make the job again: lockstep job FILE --out DIR --batch N." },
    );
  }
  const job = readJobFolder(path);
  const opened = openJob(job);
  opened.check();
  const roots = (flags.dataRoot ?? [process.cwd()]).map((root) => resolve(root));
  const run = overrideRun(opened.run, {
    steps,
    seed,
    excludeBelow,
    ...keepingOf(flags),
    ...statedIn(flags),
  });
  return { run, baseDir: opened.baseIn(roots), roots, holds: opened.holds, job };
}

/** Which checkpoints are written and kept, and where, as the command line says it. */
export function keepingOf({
  checkpointEvery,
  keepLast,
  keepEvery,
  checkpoints,
}: TargetFlags): Pick<RunOverrides, "checkpointEvery" | "keepLast" | "keepEvery" | "checkpoints"> {
  return { checkpointEvery, keepLast, keepEvery, checkpoints };
}

/**
 * The text source with the globs, files and folders of the command line in place of the run's; its
 * other options, such as a tokenizer, stay.
 */
function textOf(words: readonly string[], run: Run): DataSource {
  const globs = words.map((word) => {
    const path = resolve(word);
    if (!existsSync(path)) return isAbsolute(word) ? word : `${escapePath(process.cwd())}/${word}`;
    return statSync(path).isDirectory() ? `${escapePath(path)}/**/*` : escapePath(path);
  });
  const { data } = run;
  return data.kind === "text" ? { ...data, globs } : text(globs);
}

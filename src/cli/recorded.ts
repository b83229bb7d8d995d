/**
 * The command that started a run, as the run's folder records it for `lockstep resume`. It names the
 * run file and where the command was typed, both relative to the folder, so that they may move
 * together. It has no token.
 */
import { existsSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import { writeFileAtomic } from "../files/index.ts";
import { sharingShape } from "../job/index.ts";
import { COMMAND_FILE } from "../run/index.ts";
import type { TrainFlags } from "./target.ts";

const count = z.int().min(0);
const flags = z.strictObject({
  steps: count.optional(),
  batch: count.optional(),
  seed: count.optional(),
  workers: z.union([count, z.literal("cores")]).optional(),
  threads: count.optional(),
  checkpointEvery: count.optional(),
  keepLast: count.optional(),
  keepEvery: count.optional(),
  data: z.array(z.string()).optional(),
  dataRoot: z.array(z.string()).optional(),
  ...sharingShape,
});
const schema = z.strictObject({
  format: z.literal("lockstep-command-1"),
  /** The run file or the job, as it was typed. */
  file: z.string(),
  /** The folder in which it was typed, relative to the run's folder. */
  cwd: z.string(),
  flags,
});

export interface Recorded {
  readonly file: string;
  /** An absolute path. */
  readonly cwd: string;
  readonly flags: TrainFlags;
}

/** @throws DISK_FULL, IO_FAILED */
export async function recordCommand(out: string, file: string, given: TrainFlags): Promise<void> {
  const known = Object.keys(flags.shape);
  const kept = Object.entries(given).filter(
    ([name, value]) => known.includes(name) && value !== undefined,
  );
  const cwd = relative(resolve(out), process.cwd()) || ".";
  const command = { format: "lockstep-command-1", file, cwd, flags: Object.fromEntries(kept) };
  await writeFileAtomic(join(out, COMMAND_FILE), `${JSON.stringify(command, null, 2)}\n`);
}

/** @throws CHECKPOINT when the folder records no command, or one that cannot be understood */
export function recordedCommand(dir: string): Recorded {
  const path = join(dir, COMMAND_FILE);
  if (!existsSync(path)) {
    throw new LockstepError(
      "CHECKPOINT",
      `"${dir}" does not record which command started its run.`,
      {
        hint: "Runs on hosts and those of older versions do not. Use the command that started it, with --resume.",
        fields: { path },
      },
    );
  }
  try {
    // A flag that is not there is no undefined one.
    const { file, cwd, flags: recorded } = schema.parse(JSON.parse(readFileSync(path, "utf8")));
    return { file, cwd: resolve(dir, cwd), flags: recorded as TrainFlags };
  } catch (cause) {
    throw new LockstepError("CHECKPOINT", `"${path}" does not record a command of lockstep.`, {
      hint: "Use the command that started the run, with --resume.",
      fields: { path },
      cause,
    });
  }
}

/**
 * Goes to where the command was typed, so that its paths mean what they meant.
 * @throws FILE_NOT_FOUND when that folder is not there any more
 */
export function goTo({ cwd }: Recorded): void {
  try {
    process.chdir(cwd);
  } catch (cause) {
    throw new LockstepError(
      "FILE_NOT_FOUND",
      `The folder "${cwd}", in which the run was started, is not there any more.`,
      { hint: "Use the command that started the run, with --resume and --out.", cause },
    );
  }
}

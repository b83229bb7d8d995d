/**
 * The command that started a run, as the run's folder records it for `lockstep resume`. It names the
 * run file and where the command was typed, both relative to the folder, so that they may move
 * together. A place for checkpoints elsewhere records it too, and there the folder of the run is
 * named as it was typed: the command is repeated where `lockstep resume` is typed. It has no token.
 */
import { existsSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { z } from "zod";
import { type CheckpointStore, isStore } from "../checkpoint/index.ts";
import { LockstepError } from "../errors.ts";
import { fileError, writeFileAtomic } from "../files/index.ts";
import { sharingShape } from "../job/index.ts";
import { COMMAND_FILE, namedFolder, type RunFolder } from "../run/index.ts";
import type { TrainFlags } from "./target.ts";

const count = z.int().min(0);
const flags = z.strictObject({
  steps: count.optional(),
  batch: count.optional(),
  seed: count.optional(),
  workers: z.union([count, z.literal("cores")]).optional(),
  minWorkers: count.optional(),
  maxWorkers: count.optional(),
  listen: z.string().optional(),
  tls: z.boolean().optional(),
  threads: count.optional(),
  checkpointEvery: count.optional(),
  keepLast: count.optional(),
  keepEvery: count.optional(),
  excludeBelow: z.number().optional(),
  checkpoints: z.string().optional(),
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
  /** The run's folder, relative to the one in which it was typed; only in a place elsewhere. */
  out: z.string().optional(),
  flags,
});

export interface Recorded {
  readonly file: string;
  /** An absolute path. */
  readonly cwd: string;
  /** The run's folder, relative to `cwd`. */
  readonly out: string;
  readonly flags: TrainFlags;
}

/** @throws DISK_FULL, IO_FAILED, STORE */
export async function recordCommand(
  { path, file: fileIn, checkpoints }: RunFolder,
  file: string,
  given: TrainFlags,
): Promise<void> {
  const known = Object.keys(flags.shape);
  const kept = Object.entries(given).filter(
    ([name, value]) => known.includes(name) && value !== undefined,
  );
  const cwd = relative(resolve(path), process.cwd()) || ".";
  const command = { format: "lockstep-command-1", file, cwd, flags: Object.fromEntries(kept) };
  await writeFileAtomic(fileIn(COMMAND_FILE), textOf(command));
  if (checkpoints.isOnDisk) return;
  const out = relative(process.cwd(), resolve(path)) || ".";
  await checkpoints.writeText(COMMAND_FILE, textOf({ ...command, cwd: ".", out }));
}

function textOf(command: object): string {
  return `${JSON.stringify(command, null, 2)}\n`;
}

/**
 * The run of a folder, or of a place for checkpoints.
 * @throws FILE_NOT_FOUND; INVALID_OPTION for a place that cannot be used
 */
export async function openRecorded(dir: string): Promise<RunFolder> {
  if (isStore(dir)) return namedFolder(".", dir);
  const path = resolve(dir);
  if (!existsSync(path)) {
    throw new LockstepError("FILE_NOT_FOUND", `There is no folder "${dir}".`, {
      hint: "Name the folder of a run, such as runs/gpt, or the place of its checkpoints.",
    });
  }
  const inFolder = namedFolder(path);
  const recorded = await recordedCommand(dir, inFolder.checkpoints).catch(() => undefined);
  const { checkpoints } = recorded?.flags ?? {};
  return checkpoints === undefined ? inFolder : namedFolder(path, checkpoints);
}

/**
 * @throws CHECKPOINT when the folder, or the place, records no command, or one that cannot be
 *   understood; STORE
 */
export async function recordedCommand(
  dir: string,
  checkpoints: CheckpointStore,
): Promise<Recorded> {
  const path = isStore(dir) ? `${checkpoints.place}/${COMMAND_FILE}` : join(dir, COMMAND_FILE);
  const text = isStore(dir) ? await checkpoints.readText(COMMAND_FILE) : readIn(path);
  if (text === undefined) {
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
    const { file, cwd: typed, out: named, flags: recorded } = schema.parse(JSON.parse(text));
    const cwd = isStore(dir) ? process.cwd() : resolve(dir, typed);
    const out = named ?? (relative(cwd, resolve(dir)) || ".");
    return { file, cwd, out, flags: recorded as TrainFlags };
  } catch (cause) {
    throw new LockstepError("CHECKPOINT", `"${path}" does not record a command of lockstep.`, {
      hint: "Use the command that started the run, with --resume.",
      fields: { path },
      cause,
    });
  }
}

function readIn(path: string): string | undefined {
  try {
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  } catch (error) {
    throw fileError(error, "read", path);
  }
}

/** The steps of the checkpoints that are there. @throws CHECKPOINT if there are none */
export async function stepsOf(dir: string, checkpoints: CheckpointStore): Promise<number[]> {
  const steps = await checkpoints.steps();
  if (steps.length > 0) return steps;
  throw new LockstepError("CHECKPOINT", `"${dir}" has no checkpoints.`, {
    hint: "Name the folder of a run, such as runs/gpt, or the place of its checkpoints.",
  });
}

/** @throws CHECKPOINT naming the steps that are there */
export function requireStep(steps: readonly number[], step: number): void {
  if (steps.includes(step)) return;
  throw new LockstepError("CHECKPOINT", `There is no checkpoint of step ${step}.`, {
    hint: `There are those of the steps ${steps.join(", ")}.`,
  });
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

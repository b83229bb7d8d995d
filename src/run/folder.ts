/**
 * The folder of a run: the files that it may hold, and what happens to files that are there
 * already. Files are replaced whole, and no run is ever deleted: a run that begins in the folder of
 * another moves the other's files into `earlier-1`, `earlier-2` and so on.
 */
import { constants, existsSync, readFileSync } from "node:fs";
import { access, lstat, mkdir, readdir, rename, rm, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { type CheckpointStore, openStore, outdated, type Retention } from "../checkpoint/index.ts";
import { LockstepError } from "../errors.ts";
import { fileError, makeFolder, writeFileAtomic } from "../files/index.ts";
import { isNamedFile } from "../memory/index.ts";
import type { Report } from "../telemetry/index.ts";

export interface RunFolder {
  readonly path: string;
  file(name: string): string;
  /** Where its checkpoints are kept. */
  readonly checkpoints: CheckpointStore;
}

export const OLD_CHECKPOINT = "checkpoint.safetensors";
export const COMMAND_FILE = "run.json";
const MARK_FILE = "run.mark";

/** The files in the order in which they are shown to the user. */
export const FILES = {
  model: "model.onnx",
  parameters: "model.safetensors",
  tokenizer: "tokenizer.json",
  /**
   * A folder of checkpoints. Each has everything that a step needs: parameters, optimizer slots,
   * running statistics, and the number of committed steps.
   */
  checkpoints: "checkpoints",
  metrics: "metrics.jsonl",
  /** The report, which only a finished run has. */
  report: "report.json",
  /** The faults that `lockstep chaos` did. */
  chaos: "chaos.jsonl",
} as const;

/** Other files that a run's folder may hold. */
const OTHERS = [
  /** The only checkpoint of a run of an earlier version. It is resumed from. */
  OLD_CHECKPOINT,
  /** The command that started the run. */
  COMMAND_FILE,
  /** Which run of several machines has prepared the folder. */
  MARK_FILE,
];

/** How a run begins in its folder. */
export type Beginning =
  /** From the start; refused if the folder has an unfinished run. */
  | "new"
  /** From the start, whatever the folder has. */
  | "anew"
  /** From the checkpoint. */
  | "resume";

/**
 * Names a folder, and touches nothing.
 * @param checkpoints the address of a place for its checkpoints. Default: in the folder
 * @throws INVALID_OPTION for a place that cannot be used
 */
export function namedFolder(path: string, checkpoints?: string): RunFolder {
  const place = checkpoints ?? join(path, FILES.checkpoints);
  const store = openStore(place, process.env);
  return { path, file: (name) => join(path, name), checkpoints: store };
}

/**
 * Names a folder that a run will write. It may not exist yet, and nothing is created.
 * @throws what `namedFolder` throws; IO_FAILED when it could not be written
 */
export async function openRunFolder(path: string, checkpoints?: string): Promise<RunFolder> {
  const nearest = nearestFolder(path);
  try {
    // With the slash, a file in the place of the folder is an error too.
    await access(join(nearest, "/"), constants.W_OK);
  } catch (error) {
    throw fileError(error, "write", path);
  }
  return namedFolder(path, checkpoints);
}

/** The folder itself, or the nearest one above it that exists: on the disk that it will be on. */
export function nearestFolder(path: string): string {
  let nearest = resolve(path);
  while (!existsSync(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  return nearest;
}

/** What the checkpoints of a run are called among its files. */
export function checkpointsName({ checkpoints }: RunFolder): string {
  return checkpoints.isOnDisk ? FILES.checkpoints : checkpoints.place;
}

/** Whether the folder's run has finished. */
export function isFinished(folder: RunFolder): boolean {
  return existsSync(folder.file(FILES.report));
}

/** Whether there is a checkpoint, whole or not. @throws STORE, IO_FAILED */
export async function hasCheckpoint(folder: RunFolder): Promise<boolean> {
  const isOld = existsSync(folder.file(OLD_CHECKPOINT));
  return isOld || (await folder.checkpoints.steps()).length > 0;
}

/**
 * @throws RUN_EXISTS when a run would begin over an unfinished one; STORE, IO_FAILED when the place
 *   for checkpoints cannot be used
 */
export async function checkBeginning(folder: RunFolder, beginning: Beginning): Promise<void> {
  const isThere = await hasCheckpoint(folder);
  if (beginning !== "new" || isFinished(folder) || !isThere) return;
  const path = folder.checkpoints.isOnDisk ? folder.path : folder.checkpoints.place;
  throw new LockstepError(
    "RUN_EXISTS",
    `"${path}" holds a run that is not finished, and this run would start over it.`,
    {
      hint: "Continue it with --resume, start again with --anew (its files are kept in a folder beside), or name another place with --out.",
      fields: { path },
    },
  );
}

/**
 * Prepares the folder for the first step of a run. Checkpoints of later steps than `step`, from
 * which a run continues, are kept under another name: they are damaged, or others do not have them.
 */
export async function prepareFolder(
  folder: RunFolder,
  beginning: Beginning,
  step?: number,
): Promise<void> {
  try {
    await makeFolder(folder.path);
    await removeLeftovers(folder);
    if (beginning === "resume") await checkPlaces(folder);
    if (beginning === "resume") {
      await rm(folder.file(FILES.report), { force: true });
      const later = (await folder.checkpoints.steps()).filter((found) => found > (step ?? found));
      for (const found of later) await folder.checkpoints.setAside(found);
    } else {
      await moveAside(folder);
      // A run that has begun, on another machine, has its own checkpoints in a place that both reach.
      if (step === undefined) await folder.checkpoints.putAway();
    }
  } catch (error) {
    throw fileError(error, "write", folder.path);
  }
}

/** Whether the folder was prepared for this run, by whichever machine that sees it. */
export function isMarked(folder: RunFolder, mark: string): boolean {
  try {
    return readFileSync(folder.file(MARK_FILE), "utf8") === mark;
  } catch {
    return false; // there is none
  }
}

/** Notes that the folder is prepared for this run. */
export async function markFolder(folder: RunFolder, mark: string): Promise<void> {
  await writeFileAtomic(folder.file(MARK_FILE), mark);
}

/**
 * @throws IO_FAILED when something that is not a file has the name of a file that the run will
 * write
 */
async function checkPlaces(folder: RunFolder): Promise<void> {
  for (const name of Object.values(FILES)) {
    const path = folder.file(name);
    const found = await lstat(path).catch(() => undefined);
    const isFolder = name === FILES.checkpoints;
    // A link is replaced, and its target is left alone. A folder may be a link to one.
    if (found === undefined || found.isSymbolicLink()) continue;
    if (isFolder ? found.isDirectory() : found.isFile()) continue;
    const what = isFolder ? "a folder" : "a file";
    throw new LockstepError(
      "IO_FAILED",
      `"${path}" is not ${what}, but the run will write ${what} there.`,
      {
        hint: "Move it away, and resume again.",
        fields: { path },
      },
    );
  }
}

/** @throws DISK_FULL when the disk has no room for the files that the run will write */
export async function checkRoom(folder: RunFolder, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder.path);
  const free = bavail * bsize;
  if (free >= bytes) return;
  const mib = (size: number) => `${Math.ceil(size / 2 ** 20).toLocaleString("en-US")} MiB`;
  throw new LockstepError(
    "DISK_FULL",
    `The files of this run need about ${mib(bytes)}, but the disk of "${folder.path}" has only ${mib(free)} left.`,
    {
      hint: "Free some space there, or name another folder with --out.",
      fields: { path: folder.path, bytes, free },
    },
  );
}

async function moveAside(folder: RunFolder): Promise<void> {
  const names = [...Object.values(FILES), ...OTHERS].filter((name) =>
    existsSync(folder.file(name)),
  );
  if (names.length === 0) return;
  let number = 1;
  while (existsSync(folder.file(`earlier-${number}`))) number++;
  const earlier = folder.file(`earlier-${number}`);
  await mkdir(earlier);
  for (const name of names) await rename(folder.file(name), join(earlier, name));
}

/**
 * What a process that was killed while it wrote has left (`files/atomic.ts` names it), or while it
 * shared what it keeps on disk. By now the workers of this run have shared theirs, so no file of
 * theirs has a name.
 */
async function removeLeftovers(folder: RunFolder): Promise<void> {
  await folder.checkpoints.removeDrafts();
  const ours = new Set<string>([...Object.values(FILES), ...OTHERS]);
  for (const name of await readdir(folder.path)) {
    const target = /^\.(.+)\.[0-9a-f]{12}\.tmp$/.exec(name)?.[1];
    const isOurs = (target !== undefined && ours.has(target)) || isNamedFile(name);
    if (isOurs) await rm(folder.file(name), { force: true });
  }
}

/** Removes the checkpoints that need not be kept. */
export async function removeOutdated(folder: RunFolder, keep: Retention): Promise<void> {
  const { checkpoints } = folder;
  const steps = await checkpoints.steps();
  try {
    for (const step of outdated(steps, keep)) await checkpoints.remove(step);
    if (steps.length >= keep.keepLast) await rm(folder.file(OLD_CHECKPOINT), { force: true });
  } catch (error) {
    throw fileError(error, "write", checkpoints.place);
  }
}

/**
 * Returns the path where parts of other nodes lie while they are needed. It is named like a file
 * that is being written, so that one that a killed process leaves is removed.
 */
export function collectedPath(folder: RunFolder): string {
  return folder.file(`.${FILES.checkpoints}.${"0".repeat(12)}.tmp`);
}

export async function saveReport(folder: RunFolder, report: Report): Promise<void> {
  await writeFileAtomic(folder.file(FILES.report), `${JSON.stringify(report, null, 2)}\n`);
}

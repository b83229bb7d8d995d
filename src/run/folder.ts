/**
 * The folder of a run: which files it may hold, and what becomes of those that are there already. Files are replaced
 * whole, and no run is ever deleted: one that begins where another was moves its files into `earlier-1`, `earlier-2` …
 */
import { constants, existsSync } from "node:fs";
import { access, lstat, mkdir, readdir, rename, rm, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { LockstepError } from "../errors.ts";
import { fileError, makeFolder, writeFileAtomic } from "../files/index.ts";
import { isNamedFile } from "../memory/index.ts";
import type { Report } from "../telemetry/index.ts";

export interface RunFolder {
  readonly path: string;
  file(name: string): string;
}

/** In the order in which they are shown to people. */
export const FILES = {
  model: "model.onnx",
  parameters: "model.safetensors",
  tokenizer: "tokenizer.json",
  /** All that a step needs: parameters, optimizer slots, running statistics, and the number of steps done. */
  checkpoint: "checkpoint.safetensors",
  metrics: "metrics.jsonl",
  /** Only a finished run has it. */
  report: "report.json",
} as const;

/** How a run begins in its folder. */
export type Beginning =
  /** From the start; refused where an unfinished run lies. */
  | "new"
  /** From the start, whatever lies there. */
  | "anew"
  /** From the checkpoint. */
  | "resume";

/** Names a folder that may not exist yet. Throws IO_FAILED if it could not be written; makes nothing. */
export async function openRunFolder(path: string): Promise<RunFolder> {
  try {
    // With the slash, a file in the way is an error too.
    await access(join(nearestFolder(path), "/"), constants.W_OK);
  } catch (error) {
    throw fileError(error, "write", path);
  }
  return { path, file: (name) => join(path, name) };
}

/** The folder itself, or the nearest one above it that exists: on the disk that it will be on. */
export function nearestFolder(path: string): string {
  let nearest = resolve(path);
  while (!existsSync(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  return nearest;
}

/** Whether the folder's run came to its end. */
export function isFinished(folder: RunFolder): boolean {
  return existsSync(folder.file(FILES.report));
}

/** Throws RUN_EXISTS where a run would begin over one that was not finished. */
export function checkBeginning(folder: RunFolder, beginning: Beginning): void {
  if (beginning !== "new" || isFinished(folder) || !existsSync(folder.file(FILES.checkpoint))) {
    return;
  }
  throw new LockstepError(
    "RUN_EXISTS",
    `"${folder.path}" holds a run that is not finished, and would be begun from the start.`,
    {
      hint: "Go on with it: --resume. Begin from the start (the old files are kept beside): --anew. Or take another folder: --out.",
      fields: { path: folder.path },
    },
  );
}

/** Makes the folder fit for a run's first step. */
export async function prepareFolder(folder: RunFolder, beginning: Beginning): Promise<void> {
  try {
    await makeFolder(folder.path);
    await removeLeftovers(folder);
    if (beginning === "resume") await checkPlaces(folder);
    if (beginning === "resume") await rm(folder.file(FILES.report), { force: true });
    else await moveAside(folder);
  } catch (error) {
    throw fileError(error, "write", folder.path);
  }
}

/** Throws IO_FAILED where something else than a file has the name of one that the run will write. */
async function checkPlaces(folder: RunFolder): Promise<void> {
  for (const name of Object.values(FILES)) {
    const path = folder.file(name);
    const found = await lstat(path).catch(() => undefined);
    // A link is replaced, and what it leads to is left alone.
    if (found === undefined || found.isFile() || found.isSymbolicLink()) continue;
    throw new LockstepError(
      "IO_FAILED",
      `"${path}" is not a file, and the run will write one there.`,
      {
        hint: "Move it away, and resume again.",
        fields: { path },
      },
    );
  }
}

/** Throws DISK_FULL where the files that the run will write cannot all lie on the disk. */
export async function checkRoom(folder: RunFolder, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder.path);
  const free = bavail * bsize;
  if (free >= bytes) return;
  const mib = (size: number) => `${Math.ceil(size / 2 ** 20).toLocaleString("en-US")} MiB`;
  throw new LockstepError(
    "DISK_FULL",
    `The files of this run need about ${mib(bytes)}, and the disk of "${folder.path}" has ${mib(free)} left.`,
    {
      hint: "Make room there, or take another folder: --out.",
      fields: { path: folder.path, bytes, free },
    },
  );
}

async function moveAside(folder: RunFolder): Promise<void> {
  const names = Object.values(FILES).filter((name) => existsSync(folder.file(name)));
  if (names.length === 0) return;
  let number = 1;
  while (existsSync(folder.file(`earlier-${number}`))) number++;
  const earlier = folder.file(`earlier-${number}`);
  await mkdir(earlier);
  for (const name of names) await rename(folder.file(name), join(earlier, name));
}

/**
 * What a process that was killed while it wrote has left (`files/atomic.ts` names it), or while it
 * shared what it keeps on disk. By now the workers of this run have shared theirs, so no file of theirs has
 * a name.
 */
async function removeLeftovers(folder: RunFolder): Promise<void> {
  const ours = new Set<string>(Object.values(FILES));
  for (const name of await readdir(folder.path)) {
    const target = /^\.(.+)\.[0-9a-f]{12}\.tmp$/.exec(name)?.[1];
    const isOurs = (target !== undefined && ours.has(target)) || isNamedFile(name);
    if (isOurs) await rm(folder.file(name), { force: true });
  }
}

/**
 * Where parts of other nodes lie while they are needed: like a file that is being written, so that
 * one that a killed process leaves is removed.
 */
export function collectedPath(folder: RunFolder): string {
  return folder.file(`.${FILES.checkpoint}.${"0".repeat(12)}.tmp`);
}

export async function saveReport(folder: RunFolder, report: Report): Promise<void> {
  await writeFileAtomic(folder.file(FILES.report), `${JSON.stringify(report, null, 2)}\n`);
}

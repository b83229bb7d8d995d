/**
 * The folder of a job: `job.json`, the graphs as `.onnx` files that people can open, and the values
 * that the graphs share.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { lstat, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LockstepError } from "../errors.ts";
import { addToHash, fileError, requireFile, writeFileAtomic } from "../files/index.ts";
import { isAlive, mapFile, pidNamespace } from "../memory/index.ts";
import { version } from "../package.ts";
import { changedFile, openHead } from "./head.ts";
import type { JobFiles } from "./make.ts";
import { isFileOfJobs, JOB_FILE, type JobHead, MAX_HEAD_BYTES } from "./schema.ts";

/** A job in a folder. Every file of it is checked to be as it was when the job was made. */
export interface JobFolder {
  readonly path: string;
  readonly head: JobHead;
  /**
   * The bytes of a file that the head names. Large files are mapped, so the folder must not change
   * while the job is in use.
   */
  bytes(file: string): Uint8Array;
  /** The bytes of `job.json`, followed by the files that it names. */
  files(): JobFiles;
}

const PREFIX = "lockstep-job-";

/** Files of at least this size are mapped instead of read. */
const MIN_MAPPED_BYTES = 2 ** 20;

export function isJobFolder(path: string): boolean {
  return existsSync(join(path, JOB_FILE));
}

/**
 * Writes `job.json` last, so a folder that has it is complete. The files of an older job in the
 * folder are removed. Throws IO_FAILED for a folder that holds other files, and DISK_FULL.
 */
export async function writeJob(folder: string, files: JobFiles): Promise<void> {
  const old = await filesIn(folder);
  const other = old.find((name) => !isFileOfJobs(name));
  if (other !== undefined) {
    throw new LockstepError(
      "IO_FAILED",
      `"${folder}" holds "${other}", which is not a file of a job.`,
      {
        hint: "Name an empty folder, or that of an older job.",
        fields: { folder },
      },
    );
  }
  for (const name of [JOB_FILE, ...old]) await rm(join(folder, name), { force: true });
  for (const [name, pieces] of files) {
    if (name !== JOB_FILE) await writeFileAtomic(join(folder, name), pieces);
  }
  await writeFileAtomic(join(folder, JOB_FILE), files.get(JOB_FILE) ?? []);
}

/** The names in a folder; none if it does not exist. */
async function filesIn(folder: string): Promise<string[]> {
  try {
    return existsSync(folder) ? await readdir(folder) : [];
  } catch (error) {
    throw fileError(error, "write", folder);
  }
}

/**
 * Does the same as `writeJob` in a folder that `makeJobFolder` returned, without making sure that
 * the files survive a loss of power.
 */
export async function writeJobForNow(folder: string, files: JobFiles): Promise<void> {
  for (const [name, pieces] of files) {
    const path = join(folder, name);
    try {
      await writeFile(path, pieces, { mode: 0o600 });
    } catch (error) {
      throw fileError(error, "write", path);
    }
  }
}

/**
 * Makes a temporary folder that only this user can read. Folders of processes that were killed are
 * removed: an agent keeps a job as long as it runs, because it may start workers at any time.
 */
export async function makeJobFolder(): Promise<string> {
  // Where there is no folder for temporary files, the current one serves.
  const places = [tmpdir(), process.cwd()];
  let first: unknown;
  for (const place of places) {
    try {
      await removeLeft(place);
      return await mkdtemp(join(place, `${PREFIX}${pidNamespace()}.${process.pid}-`));
    } catch (error) {
      first ??= error;
    }
  }
  throw fileError(first, "write", tmpdir());
}

/** Removes the folders of this user whose process is no more. */
async function removeLeft(place: string): Promise<void> {
  for (const name of await readdir(place)) {
    if (!name.startsWith(PREFIX)) continue;
    const [, space, pid] = /^(\d+)\.(\d+)-/.exec(name.slice(PREFIX.length)) ?? [];
    if (space !== pidNamespace() || isAlive(Number(pid))) continue;
    const path = join(place, name);
    const found = await lstat(path).catch(() => undefined);
    const isOurs = found?.isDirectory() === true && found.uid === process.geteuid?.();
    if (isOurs) await removeJobFolder(path).catch(() => undefined);
  }
}

export function removeJobFolder(folder: string): Promise<void> {
  return rm(folder, { recursive: true, force: true });
}

/**
 * Reads and checks every file of a job. Throws FILE_NOT_FOUND, IO_FAILED, FILE_CORRUPT for one that
 * was changed, JOB, JOB_VERSION.
 */
export function readJobFolder(folder: string): JobFolder {
  const path = join(folder, JOB_FILE);
  requireFile(path);
  if (statSync(path).size > MAX_HEAD_BYTES) {
    throw new LockstepError("JOB", `"${path}" is larger than ${MAX_HEAD_BYTES} bytes.`);
  }
  const own = readAt(path);
  const head = openHead(own, version());
  const all = new Map<string, Uint8Array>();
  for (const [name, said] of Object.entries(head.files)) {
    all.set(name, readPart(join(folder, name), name, said));
  }
  const bytes = (file: string) => {
    const found = all.get(file);
    if (found !== undefined) return found;
    throw new LockstepError("JOB", `${JOB_FILE} names "${file}", which is not among its files.`);
  };
  return {
    path: folder,
    head,
    bytes,
    files: () =>
      new Map([
        [JOB_FILE, [own]],
        ...[...all].map(([name, content]) => [name, [content]] as const),
      ]),
  };
}

function readPart(path: string, name: string, said: JobHead["files"][string]): Uint8Array {
  requireFile(path);
  const { size } = statSync(path);
  if (size !== said.bytes) throw changedFile(name);
  const bytes = size < MIN_MAPPED_BYTES ? readAt(path) : mapFile(path).bytes;
  const hash = createHash("sha256");
  addToHash(hash, bytes);
  if (hash.digest("hex") !== said.sha256) throw changedFile(name);
  return bytes;
}

function readAt(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fileError(error, "read", path);
  }
}

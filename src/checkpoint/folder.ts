/**
 * The folder `checkpoints/` of a run. A checkpoint is the folder `step-N` in it, with shards and a
 * manifest. It is written as a draft, a folder under another name, which is renamed when all of it
 * is on disk. So a `step-N` is whole, and what a killed process leaves has a draft's name.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readdir, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { LockstepError } from "../errors.ts";
import {
  fileError,
  makeFolder,
  openRange,
  readFileWhole,
  syncFolder,
  writeFileAtomic,
} from "../files/index.ts";
import {
  MANIFEST,
  MAX_MANIFEST_BYTES,
  type Manifest,
  manifestText,
  parseManifest,
} from "./manifest.ts";

const DRAFT = /^\.step-\d+\.[0-9a-f]{12}\.tmp$/;
const STEP = /^step-(0|[1-9]\d{0,15})$/;

/** The path of the checkpoint of a step in a folder of checkpoints. */
export function stepFolder(folder: string, step: number): string {
  return join(folder, `step-${step}`);
}

/** The steps of the checkpoints in a folder, ascending; none where there is no folder. */
export function listSteps(folder: string): number[] {
  if (!existsSync(folder)) return [];
  try {
    return readdirSync(folder)
      .flatMap((name) => STEP.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  } catch (error) {
    throw fileError(error, "list", folder);
  }
}

/**
 * @throws CHECKPOINT when the manifest is missing, damaged or of another version; FILE_NOT_FOUND,
 *   IO_FAILED
 */
export async function readManifest(checkpoint: string): Promise<Manifest> {
  const path = join(checkpoint, MANIFEST);
  if (!existsSync(path)) {
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${checkpoint}" is damaged: it has no ${MANIFEST}.`,
      { hint: "Use an older checkpoint, or start again with --anew.", fields: { path } },
    );
  }
  const file = await openRange(path);
  const { byteLength } = file;
  await file.close();
  if (byteLength > MAX_MANIFEST_BYTES) {
    throw new LockstepError("CHECKPOINT", `"${path}" is too large for a manifest.`, {
      fields: { path },
    });
  }
  return parseManifest(new TextDecoder().decode(await readFileWhole(path)), path);
}

/**
 * Makes an empty draft, with a file for the shard of each writer, and removes older drafts. Returns
 * its name.
 * @throws DISK_FULL, IO_FAILED
 */
export async function beginDraft(
  folder: string,
  step: number,
  writers: Iterable<number>,
): Promise<string> {
  const name = draftName(step);
  try {
    await makeFolder(folder);
    await removeDrafts(folder);
    await mkdir(join(folder, name));
    for (const rank of writers) await writeFile(partPath(join(folder, name), rank), "");
  } catch (error) {
    await discardDraft(folder, name);
    throw fileError(error, "write", stepFolder(folder, step));
  }
  return name;
}

function draftName(step: number): string {
  return `.step-${step}.${randomBytes(6).toString("hex")}.tmp`;
}

/** Where a rank writes its shard. */
export function partPath(draft: string, rank: number): string {
  return join(draft, `rank-${rank}.part`);
}

/** The path of the checkpoint that a draft will be. */
export function placeOf(draft: string): string {
  return join(dirname(draft), basename(draft).replace(/^\.(step-\d+)\..*$/, "$1"));
}

/** Removes a draft that is not completed, and the folder of checkpoints if nothing else is in it. */
export async function discardDraft(folder: string, draft: string): Promise<void> {
  await rm(join(folder, draft), { recursive: true, force: true }).catch(() => undefined);
  await rmdir(folder).catch(() => undefined);
}

/** Removes what a process that was killed has left, and checkpoints that were being removed. */
export async function removeDrafts(folder: string): Promise<void> {
  if (!existsSync(folder)) return;
  for (const name of await readdir(folder)) {
    if (DRAFT.test(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

/**
 * Completes a draft whose files have the names that the manifest says. It replaces a checkpoint of
 * the same step. Returns the path.
 * @throws DISK_FULL, IO_FAILED
 */
export async function publish(folder: string, draft: string, manifest: Manifest): Promise<string> {
  const path = stepFolder(folder, manifest.step);
  try {
    await writeFileAtomic(join(folder, draft, MANIFEST), manifestText(manifest));
    const old = existsSync(path) ? join(folder, draftName(manifest.step)) : undefined;
    if (old !== undefined) await rename(path, old);
    await rename(join(folder, draft), path);
    await syncFolder(folder);
    if (old !== undefined) await rm(old, { recursive: true, force: true });
  } catch (error) {
    throw fileError(error, "write", path);
  }
  return path;
}

/** Removes a checkpoint. It has a draft's name while its files are being removed. */
export async function removeStep(folder: string, step: number): Promise<void> {
  const name = join(folder, draftName(step));
  await rename(stepFolder(folder, step), name);
  await rm(name, { recursive: true, force: true });
}

/**
 * Gives a checkpoint that is not resumed a name that no checkpoint has. It replaces an earlier one
 * of that name.
 */
export async function setAside(folder: string, step: number): Promise<void> {
  const aside = join(folder, `aside-step-${step}`);
  await rm(aside, { recursive: true, force: true });
  await rename(stepFolder(folder, step), aside);
}

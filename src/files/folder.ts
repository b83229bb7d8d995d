/** Makes folders, one at a time. */
import { mkdir } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/**
 * Makes a folder and those above it; an existing folder is no error. Throws the system's error. It
 * does not use `mkdir` with `recursive`, which in Node 20 never returns if a file system allows no
 * new folder (`/proc/x`).
 */
export async function makeFolder(path: string): Promise<void> {
  const missing: string[] = [];
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    const failure = await tryMake(folder);
    if (failure === undefined) break;
    if (failure.code !== "ENOENT" || dirname(folder) === folder) throw failure;
    missing.push(folder);
  }
  for (const folder of missing.reverse()) {
    const failure = await tryMake(folder);
    if (failure !== undefined) throw failure;
  }
}

async function tryMake(folder: string): Promise<NodeJS.ErrnoException | undefined> {
  try {
    await mkdir(folder);
    return undefined;
  } catch (error) {
    const failure = error as NodeJS.ErrnoException;
    return failure.code === "EEXIST" || failure.code === "EISDIR" ? undefined : failure;
  }
}

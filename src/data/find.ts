/** Finds the files that globs name, in an order that is the same on every machine. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { glob } from "tinyglobby";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import { type Base, rootCheck } from "./place.ts";

export interface FoundFile {
  /** The path relative to the base folder, with `/` on every system. */
  readonly name: string;
  readonly path: string;
  readonly byteLength: number;
}

/**
 * The number of files that are examined or read at once: enough to keep a disk busy, and far from
 * any limit on open files.
 */
export const FILES_AT_ONCE = 32;

/**
 * Throws DATA_EMPTY, naming globs and folder, if nothing matches, and DATA_PLACE for files outside
 * of the base's roots. Empty files are omitted.
 */
export async function findFiles(globs: readonly string[], base: Base): Promise<FoundFile[]> {
  const { baseDir } = base;
  const check = rootCheck(base);
  let names: string[];
  try {
    names = await glob([...globs], { cwd: baseDir, onlyFiles: true, expandDirectories: false });
  } catch (error) {
    throw fileError(error, "list", baseDir);
  }
  if (names.length > 0 && globs.length > 1) await checkEach(globs, baseDir);
  // Code units are compared, so that no locale changes the order.
  const sorted = [...new Set(names)].sort();
  const files = await inParallel(sorted, FILES_AT_ONCE, async (name) => {
    const path = resolve(baseDir, name);
    // The error does not name the file: whoever gave the globs may not be allowed to know what lies
    // there.
    check(path, globs.join(", "));
    try {
      return { name, path, byteLength: (await stat(path)).size };
    } catch (error) {
      throw fileError(error, "read", path);
    }
  });
  const found = files.filter(({ byteLength }) => byteLength > 0);
  if (found.length > 0) return found;
  const what = globs.map((pattern) => `"${pattern}"`).join(", ");
  throw new LockstepError(
    "DATA_EMPTY",
    names.length === 0
      ? `No file matches ${what} in "${resolve(baseDir)}".`
      : `All ${names.length} files that match ${what} in "${resolve(baseDir)}" are empty.`,
    {
      hint: 'A glob is relative to that folder; "docs/**/*.md" takes all files below "docs" that end in ".md".',
      fields: { globs, baseDir: resolve(baseDir) },
    },
  );
}

/** Each of several globs must match a file: missing data must not pass for a smaller data set. */
async function checkEach(globs: readonly string[], baseDir: string): Promise<void> {
  for (const pattern of globs) {
    if (pattern.startsWith("!")) continue;
    const names = await glob(pattern, { cwd: baseDir, onlyFiles: true, expandDirectories: false });
    if (names.length > 0) continue;
    throw new LockstepError(
      "DATA_EMPTY",
      `No file matches "${pattern}" in "${resolve(baseDir)}", though the other globs match some.`,
      { hint: "Remove it, or correct it.", fields: { globs, baseDir: resolve(baseDir) } },
    );
  }
}

/**
 * Does `work` for all items, at most `limit` at a time; the results are in the order of the items.
 */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  limit: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results = new Array<Result>(items.length);
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const index = next++;
      results[index] = await work(items[index] as Item);
    }
  };
  const lanes = Array.from({ length: Math.min(limit, items.length) }, lane);
  try {
    await Promise.all(lanes);
  } catch (error) {
    next = items.length; // the other lanes stop after their present item
    await Promise.allSettled(lanes);
    throw error;
  }
  return results;
}

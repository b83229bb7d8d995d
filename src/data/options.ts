/**
 * Checks the arguments of a source when it is stated. A path that is undefined is often a variable
 * that was not set.
 */
import { LockstepError } from "../errors.ts";
import { lists, type OptionKinds, share, word } from "../options.ts";
import type { SourceOptions } from "./source.ts";

/** The list of one glob or several. Throws INVALID_OPTION. */
export function globsOf(source: string, globs: unknown): readonly string[] {
  const list: unknown[] = Array.isArray(globs) ? globs : [globs];
  for (const glob of list) checkPath(source, "a path or glob", glob);
  if (list.length === 0) fail(source, "at least one path or glob", list);
  return list as string[];
}

/** Throws INVALID_OPTION unless each value is a path. */
export function checkPaths(source: string, paths: Readonly<Record<string, unknown>>): void {
  if (typeof paths !== "object" || paths === null) fail(source, "an object of paths", paths);
  for (const [name, path] of Object.entries(paths)) checkPath(source, `a path as "${name}"`, path);
}

export function checkPath(source: string, what: string, path: unknown): void {
  if (typeof path !== "string" || path === "") fail(source, what, path);
}

/** The schemas of the options that all sources have. */
export const SOURCE_OPTIONS: OptionKinds<SourceOptions> = {
  heldOut: share.optional(),
  fields: lists(word).optional(),
};

function fail(source: string, wanted: string, got: unknown): never {
  const given = typeof got === "string" ? `"${got}"` : String(got);
  throw new LockstepError("INVALID_OPTION", `${source} needs ${wanted}, got ${given}.`, {
    hint: "If it comes from a variable of the environment, that one is not set.",
  });
}

/** The places that a source names: their paths, and whether data may come from there. */
import { lstatSync, realpathSync } from "node:fs";
import { dirname, relative, resolve, sep } from "node:path";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import type { OpenRequest } from "./source.ts";

export type Base = Pick<OpenRequest, "baseDir" | "roots">;

/**
 * The path of a file. Throws DATA_PLACE, and FILE_NOT_FOUND if `roots` are given and the file does
 * not exist.
 */
export function pathOf(place: string, base: Base): string {
  const path = resolve(base.baseDir, place);
  rootCheck(base)(path, place);
  return path;
}

/**
 * Returns a check of paths: it throws DATA_PLACE for a path that lies below none of the roots,
 * after links are followed.
 */
export function rootCheck({ roots }: Base): (path: string, place: string) => void {
  if (roots === undefined) return () => undefined;
  const real = roots.map((root) => realpathSync(root));
  const folders = new Map<string, boolean>();
  const isBelow = (path: string) =>
    real.some((root) => {
      const way = relative(root, path);
      return way !== ".." && !way.startsWith(`..${sep}`) && resolve(root, way) === path;
    });
  return (path, place) => {
    try {
      const folder = dirname(path);
      const known = folders.get(folder) ?? isBelow(realpathSync(folder));
      folders.set(folder, known);
      const isLink = lstatSync(path).isSymbolicLink();
      if (isLink ? isBelow(realpathSync(path)) : known) return;
    } catch (error) {
      throw fileError(error, "read", path);
    }
    throw new LockstepError(
      "DATA_PLACE",
      `The data "${place}" lies outside the folders that data may come from.`,
      {
        hint: "A link counts as the place that it leads to. --data-root names a folder that data may come from, and can be given several times.",
        fields: { place },
      },
    );
  };
}

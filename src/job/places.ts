/**
 * The places of a job's data. They start from a folder that whoever runs the job names, and never
 * contain a path of the machine on which the job was made. A place that leads out of the folder is
 * refused when the job is made and when it is read; links are checked when the data is opened.
 */
import { existsSync } from "node:fs";
import { join, posix, relative, sep } from "node:path";
import { escapePath, isDynamicPattern } from "tinyglobby";
import { type DataSource, withPlaces } from "../data/index.ts";
import { LockstepError } from "../errors.ts";

export interface Places {
  /**
   * The folder that the source's places start from, relative to a data root; empty for the root
   * itself.
   */
  readonly folder: string;
  readonly source: DataSource;
}

/**
 * The source, with all places relative to `root`. Throws DATA_PLACE for a place that is not below
 * it.
 */
export function placesBelow(source: DataSource, baseDir: string, root: string): Places {
  const folder = slashes(relative(root, baseDir));
  if (!isBelow("", folder, false) && folder !== "") {
    throw new LockstepError(
      "DATA_PLACE",
      `The data of this run is named from "${baseDir}", which is not below "${root}".`,
      {
        hint: "Start the command in a folder that contains the run file and the data, or name one with --data-root.",
      },
    );
  }
  const changed = withPlaces(source, (place, isGlob) => relativePlace(place, isGlob, baseDir));
  const places = { folder, source: changed };
  checkPlaces(places, `below "${root}"`);
  return places;
}

/** The place relative to the folder that places start from, as tinyglobby would resolve it. */
function relativePlace(place: string, isGlob: boolean, baseDir: string): string {
  if (!isGlob) return slashes(relative(baseDir, join(place.startsWith("/") ? "" : baseDir, place)));
  const [, not = "", glob = ""] = /^(!?)(.*)$/s.exec(place) ?? [];
  const isAbsolute = glob.replaceAll("\\", "").startsWith("/");
  return not + (isAbsolute ? posix.relative(escapePath(slashes(baseDir)), glob) : glob);
}

function slashes(path: string): string {
  return path.split(sep).join("/");
}

/** Throws DATA_PLACE for a place that leads out of the folder that is to be the root. */
export function checkPlaces({ folder, source }: Places, where = "below the data roots"): void {
  if (folder !== "" && !isBelow("", folder, false)) throw outside(folder, where);
  withPlaces(source, (place, isGlob) => {
    if (isBelow(folder, place, isGlob)) return place;
    throw outside(place, where);
  });
}

function outside(place: string, where: string): LockstepError {
  return new LockstepError("DATA_PLACE", `The data "${place}" is not ${where}.`, {
    hint: "The data of a job lies below the folders that are named where it runs: --data-root, or else the current folder.",
    fields: { place },
  });
}

/**
 * Whether a place that starts from `folder` stays below its root, whatever a glob in it matches.
 */
export function isBelow(folder: string, place: string, isGlob: boolean): boolean {
  const bare = isGlob ? place.replace(/^!/, "").replaceAll("\\", "") : place;
  if (bare === "" || /^(?:\/|[A-Za-z]:)|\0/.test(bare)) return false;
  if (!isGlob && bare.includes("\\")) return false;
  let depth = folder.split("/").filter((part) => part !== "" && part !== ".").length;
  let isMagic = false;
  for (const part of bare.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") {
      depth--;
      if (depth < 0 || isMagic) return false;
      continue;
    }
    // A glob such as `{a,../b}` is split at its slash, so each part is checked for `..`.
    if (isGlob && /(?:^|[{,(|])\.\.(?:$|[},)|])/.test(part)) return false;
    isMagic ||= isGlob && isDynamicPattern(part);
    depth++;
  }
  return true;
}

/**
 * The base folder below the first of several roots that contains all places. If none does, it lies
 * below the first root, and opening the data says what is missing.
 */
export function baseIn(places: Places, roots: readonly string[]): string {
  const found = roots.find((root) => hasAll(places, root));
  return join(found ?? roots[0] ?? ".", places.folder);
}

function hasAll({ folder, source }: Places, root: string): boolean {
  const base = join(root, folder);
  let all = existsSync(base);
  withPlaces(source, (place, isGlob) => {
    const parts = place.split("/");
    const magic = isGlob ? parts.findIndex((part) => isDynamicPattern(part)) : -1;
    const fixed = magic < 0 ? place : parts.slice(0, magic).join("/");
    if (!place.startsWith("!")) all &&= existsSync(join(base, fixed.replace(/\\(.)/g, "$1")));
    return place;
  });
  return all;
}

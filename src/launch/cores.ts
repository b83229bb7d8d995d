/**
 * The number of cores that this process may use: it respects the process's affinity and a
 * container's quota of CPU time.
 */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";

export type ReadText = (path: string) => string;

/**
 * A quota counts as whole cores, rounded down, and at least one: a thread that waits for others
 * uses its core too, and when a control group has used up its quota, all of its threads pause.
 */
export function availableCores(): number {
  const cores = availableParallelism();
  if (process.platform !== "linux") return cores;
  const quota = quotaOf((path) => readFileSync(path, "utf8"));
  return Math.max(1, Math.min(cores, Math.floor(quota)));
}

/**
 * The smallest quota, in cores, of the control groups that this process is in; Infinity without
 * one.
 */
export function quotaOf(read: ReadText): number {
  const lines = linesOf(read, "/proc/self/mountinfo");
  let least = Number.POSITIVE_INFINITY;
  for (const group of linesOf(read, "/proc/self/cgroup")) {
    const [, controllers = "", path = ""] = /^\d+:([^:]*):(.*)$/.exec(group) ?? [];
    const isV2 = controllers === "";
    if (!isV2 && !controllers.split(",").includes("cpu")) continue;
    for (const line of lines) {
      const mount = mountOf(line, isV2);
      if (mount === undefined) continue;
      for (const folder of foldersOf(path, mount)) {
        least = Math.min(least, isV2 ? quotaV2(read, folder) : quotaV1(read, folder));
      }
    }
  }
  return least;
}

interface Mount {
  /** The path within the hierarchy at which the mount begins. */
  readonly root: string;
  readonly place: string;
}

/** The mount of the hierarchy that has the CPU controller. Format: proc(5), mountinfo. */
function mountOf(line: string, isV2: boolean): Mount | undefined {
  const [before = "", after = ""] = line.split(" - ");
  const [, , , root = "", place = ""] = before.split(" ");
  const [kind = "", , options = ""] = after.split(" ");
  const isOurs = isV2
    ? kind === "cgroup2"
    : kind === "cgroup" && options.split(",").includes("cpu");
  return isOurs ? { root, place } : undefined;
}

/** The folder of the control group and the folders above it, as far as they are mounted here. */
function foldersOf(path: string, { root, place }: Mount): string[] {
  // In a container, the path may be given as seen from outside, while only its last part is mounted
  // here.
  const inside = relative(root, path);
  const folders = [inside.startsWith("..") ? place : join(place, inside)];
  for (;;) {
    const last = folders.at(-1) as string;
    if (last === place || !last.startsWith(place)) return folders;
    folders.push(dirname(last));
  }
}

function quotaV2(read: ReadText, folder: string): number {
  const [quota, period] = (linesOf(read, join(folder, "cpu.max"))[0] ?? "max").split(" ");
  return quota === "max" ? Number.POSITIVE_INFINITY : ratio(quota, period);
}

function quotaV1(read: ReadText, folder: string): number {
  const value = (name: string) => linesOf(read, join(folder, name))[0];
  return ratio(value("cpu.cfs_quota_us"), value("cpu.cfs_period_us"));
}

/** A value that is not a positive number (-1 means no quota) counts as no quota. */
function ratio(quota: string | undefined, period: string | undefined): number {
  const cores = Number(quota) / Number(period);
  return cores > 0 ? cores : Number.POSITIVE_INFINITY;
}

function linesOf(read: ReadText, path: string): string[] {
  try {
    return read(path)
      .split("\n")
      .filter((line) => line !== "");
  } catch {
    return []; // there is no such hierarchy, or this process may not read it
  }
}

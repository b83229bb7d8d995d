/** How many cores this process may use: those of the machine, its affinity, and what a container's quota of CPU time allows. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";

export type ReadText = (path: string) => string;

/**
 * A quota counts as whole cores, rounded down and at least one: a thread that waits for others uses its core too, and
 * a group that has used up its time stands still as a whole.
 */
export function availableCores(): number {
  const cores = availableParallelism();
  if (process.platform !== "linux") return cores;
  const quota = quotaOf((path) => readFileSync(path, "utf8"));
  return Math.max(1, Math.min(cores, Math.floor(quota)));
}

/** The least quota of the control groups that this process is in, in cores; Infinity without one. */
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
  /** Where in the hierarchy the mount begins. */
  readonly root: string;
  readonly place: string;
}

/** Of the hierarchy that has the CPU controller. Format: proc(5), mountinfo. */
function mountOf(line: string, isV2: boolean): Mount | undefined {
  const [before = "", after = ""] = line.split(" - ");
  const [, , , root = "", place = ""] = before.split(" ");
  const [kind = "", , options = ""] = after.split(" ");
  const isOurs = isV2
    ? kind === "cgroup2"
    : kind === "cgroup" && options.split(",").includes("cpu");
  return isOurs ? { root, place } : undefined;
}

/** The group's folder and those above it, as far as they are mounted here. */
function foldersOf(path: string, { root, place }: Mount): string[] {
  // In a container the path may be told from outside, where nothing of it is mounted but its own end.
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

/** What is not a positive number (-1: no quota) is none. */
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
    return []; // no such hierarchy, or not for this process to read
  }
}

/**
 * A share of a core for each program of a benchmark, by control groups of Linux (version 1 or 2).
 * Workers then do not compete: each is a machine of its own, slow as it is, so that more of them
 * than there are cores show what their timetable lets them wait.
 */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * In microseconds. Who has used up a share waits for the rest of a period, so it is as short as Linux
 * lets it be: a share is at least one millisecond.
 */
const [LEAST_SHARE, LONGEST_PERIOD] = [1_000, 100_000];
const FIRST = "/sys/fs/cgroup/cpu";
const SECOND = "/sys/fs/cgroup";

export interface Quotas {
  /** The words before a command, so that it has the share of this index. */
  prefix(index: number): readonly string[];
  close(): void;
}

/**
 * @param cores the part of a core that each of `count` programs has
 * @returns undefined where control groups cannot be made: they need Linux, and the rights of root
 */
export function openQuotas(count: number, cores: number): Quotas | undefined {
  const version = [FIRST, SECOND].find((folder) => isController(folder));
  if (version === undefined) return undefined;
  const period = Math.min(LONGEST_PERIOD, Math.round(LEAST_SHARE / cores));
  const folders: string[] = [];
  const close = () => {
    for (const folder of folders.splice(0)) rmdirSync(folder);
  };
  try {
    for (let index = 0; index < count; index++) {
      const folder = join(version, `lockstep-bench-${process.pid}-${index}`);
      mkdirSync(folder);
      folders.push(folder);
      if (version === SECOND) {
        writeFileSync(join(folder, "cpu.max"), `${LEAST_SHARE} ${period}`);
      } else {
        writeFileSync(join(folder, "cpu.cfs_period_us"), String(period));
        writeFileSync(join(folder, "cpu.cfs_quota_us"), String(LEAST_SHARE));
      }
    }
  } catch {
    close();
    return undefined;
  }
  const enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"';
  return { prefix: (index) => ["sh", "-c", enter, folders[index] as string], close };
}

function isController(folder: string): boolean {
  try {
    if (folder === FIRST) return readdirSync(folder).includes("cpu.shares");
    return readFileSync(join(folder, "cgroup.subtree_control"), "utf8").includes("cpu");
  } catch {
    return false;
  }
}

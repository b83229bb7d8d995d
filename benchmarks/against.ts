/**
 * Another revision of Lockstep, built beside this one, so that both are measured in the same run.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

export interface Revision {
  /** The short hash of its commit. */
  readonly name: string;
  /** The folder of its built checkout. */
  readonly folder: string;
}

/**
 * Builds a revision, unless it was built before. Its own dependencies are installed.
 * @param given a commit, a tag or a branch of the repository at `root`
 */
export function buildRevision(root: string, given: string): Revision {
  const git = (...words: string[]) => execFileSync("git", words, { cwd: root, encoding: "utf8" });
  const commit = git("rev-parse", "--verify", `${given}^{commit}`).trim();
  const name = commit.slice(0, 7);
  const cache = join(root, "node_modules/.cache/lockstep-revisions");
  const folder = join(cache, name);
  if (existsSync(folder)) return { name, folder };
  console.error(`building ${name}`);
  const unfinished = join(cache, `${name}.unfinished`);
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  const archive = join(cache, `${name}.tar`);
  git("archive", "--output", archive, commit);
  const run = (command: string, ...words: string[]) =>
    execFileSync(command, words, { cwd: unfinished, stdio: ["ignore", "ignore", "inherit"] });
  run("tar", "-xf", archive);
  rmSync(archive);
  run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund");
  run("npm", "run", "build");
  renameSync(unfinished, folder);
  return { name, folder };
}

/**
 * Resolves the places that a job names. They must lie below the agent's folder after all links are
 * followed.
 */
import { lstatSync, realpathSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { LockstepError } from "../errors.ts";

/**
 * The path of a folder that exists or can be made. Throws RUN_FOLDER if a link leads out of the
 * agent's folder.
 */
export function outputAt(folder: string, out: string): string {
  const path = join(folder, out);
  let existing = path;
  while (!isThere(existing)) existing = dirname(existing);
  let real: string;
  try {
    real = realpathSync(existing);
  } catch {
    throw leadsOut(out); // the target of the link does not exist yet, so it cannot be checked
  }
  checkBelow(folder, real, out);
  return path;
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

function checkBelow(folder: string, real: string, place: string): void {
  const way = relative(realpathSync(folder), real);
  if (way === ".." || way.startsWith(`..${sep}`)) throw leadsOut(place);
}

function leadsOut(place: string): LockstepError {
  return new LockstepError("RUN_FOLDER", `"${place}" leads out of the folder of this agent.`, {
    hint: "Start the agent in a folder that run folders lie below; links may not lead out of it.",
    fields: { place },
  });
}

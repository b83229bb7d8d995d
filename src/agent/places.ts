/** Places that a job names: below the agent's folder in truth, whatever links lie on the way. */
import { lstatSync, realpathSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { LockstepError } from "../errors.ts";

/** The path of a folder that is there or can be made. Throws RUN_FOLDER for one that a link leads out of the agent's. */
export function outputAt(folder: string, out: string): string {
  const path = join(folder, out);
  let existing = path;
  while (!isThere(existing)) existing = dirname(existing);
  let real: string;
  try {
    real = realpathSync(existing);
  } catch {
    throw leadsOut(out); // a link to nothing: who knows where that will be
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

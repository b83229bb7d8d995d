/** Places that a job names: below the agent's folder in truth, whatever links lie on the way. */
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  realpathSync,
} from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { LockstepError } from "../errors.ts";

/** Of a run file: it is a program that people write. */
const MAX_FILE_BYTES = 2 ** 24;

/** The path of a run file whose content has this SHA-256. Throws FILE_NOT_FOUND or RUN_FILE, and tells nothing of its content. */
export function runFileAt(folder: string, file: string, sha256: string): string {
  const path = join(folder, file);
  let real: string;
  try {
    real = realpathSync(path);
  } catch (error) {
    throw new LockstepError("FILE_NOT_FOUND", `There is no run file "${file}" here.`, {
      hint: "Put the run file and its data at the same place below the folder of every agent.",
      cause: error,
    });
  }
  checkBelow(folder, real, file);
  checkBelow(folder, realpathSync(dirname(path)), file); // data is named from there
  if (createHash("sha256").update(readRunFile(real, file)).digest("hex") === sha256) return path;
  throw new LockstepError("RUN_FILE", `The run file "${file}" is another one here.`, {
    hint: "Copy the launcher's to the same place below the folder of every agent.",
    fields: { file },
  });
}

/** The path of a folder that is there or can be made. Throws RUN_FILE for one that a link leads out of the agent's. */
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
  return new LockstepError("RUN_FILE", `"${place}" leads out of the folder of this agent.`, {
    hint: "Start the agent in a folder that everything of the run lies below; links may not lead out of it.",
    fields: { place },
  });
}

function readRunFile(path: string, file: string): Uint8Array {
  // A pipe that nobody writes to would not open without O_NONBLOCK.
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const stat = fstatSync(descriptor);
    if (!stat.isFile() || stat.size > MAX_FILE_BYTES) {
      const what = stat.isFile() ? `larger than ${MAX_FILE_BYTES} bytes` : "no regular file";
      throw new LockstepError("RUN_FILE", `"${file}" is no run file: it is ${what}.`, {
        fields: { file },
      });
    }
    const bytes = new Uint8Array(stat.size);
    let length = 0;
    for (;;) {
      const count = readSync(descriptor, bytes, length, bytes.byteLength - length, null);
      length += count;
      if (count === 0 || length === bytes.byteLength) return bytes.subarray(0, length);
    }
  } catch (error) {
    if (error instanceof LockstepError) throw error;
    throw new LockstepError("RUN_FILE", `The run file "${file}" cannot be read here.`, {
      fields: { file },
      cause: error,
    });
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

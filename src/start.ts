/**
 * The first module that a process of lockstep loads. It loads all others, which opens many files at
 * once.
 */
import { readFileSync } from "node:fs";

/** More files than Node.js opens at once for our modules and those of our dependencies. */
const ENOUGH_FILES = 1024;

/**
 * Loads the modules of a process. If the system allows too few open files for that, it ends the
 * process with a sentence.
 */
export async function loadModules(load: () => Promise<unknown>): Promise<void> {
  // The limit is read first: later, there may be no file left to read it from.
  const limit = openFilesLimit();
  try {
    await load();
  } catch (error) {
    // Node.js reports a file that it could not open as one that does not exist.
    if (limit >= ENOUGH_FILES) throw error;
    process.stderr.write(
      `lockstep: The modules of this program cannot be loaded: this process may open only ${limit} files at once.\n` +
        `  Allow it more: ulimit -n ${ENOUGH_FILES}. [IO_FAILED]\n`,
    );
    process.exitCode = 1;
  }
}

function openFilesLimit(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "latin1");
    return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    return Number.POSITIVE_INFINITY; // the limit is not known on this system
  }
}

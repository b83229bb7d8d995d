/** Loads a run file: a TypeScript module whose default export is `defineRun({…})`. */
import { existsSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { LockstepError } from "../errors.ts";
import { requireFile } from "../files/index.ts";
import { isOwnModule } from "../package.ts";
import { isRun, type Run } from "./run.ts";

/**
 * @throws FILE_NOT_FOUND; RUN_FILE when the module does not load or exports no run; or what the
 * file throws
 */
export async function loadRun(file: string): Promise<Run> {
  const path = resolve(file);
  if (!existsSync(path)) {
    throw new LockstepError("FILE_NOT_FOUND", `There is no run file "${file}".`, {
      hint: "Give the path of a TypeScript module that exports defineRun({…}).",
    });
  }
  requireFile(path);
  // `lockstep` in the file means this package as it is loaded already, wherever the file lies and
  // however it imports it.
  const lockstep: unknown = await import("../index.ts");
  // Workers, which get their run as a job, need no loader: it takes a tenth of their start.
  const { createJiti } = await import("jiti");
  const jiti = createJiti(import.meta.url, { virtualModules: { lockstep }, fsCache: false });
  let exported: unknown;
  try {
    exported = await jiti.import(path, { default: true });
  } catch (error) {
    if (error instanceof LockstepError) throw error;
    throw new LockstepError(
      "RUN_FILE",
      `The run file "${file}" does not load: ${reasonOf(error, path)}`,
      {
        fields: { file },
        cause: error,
      },
    );
  }
  if (!isRun(exported)) {
    throw new LockstepError("RUN_FILE", `The run file "${file}" exports no run.`, {
      hint: "Write: export default defineRun({ model, data, optimizer, batch, steps });",
    });
  }
  return exported;
}

/**
 * Returns the error's message and the line of the user's code that caused it, in the run file or in
 * a file that it imports.
 */
function reasonOf(error: unknown, path: string): string {
  if (!(error instanceof Error)) return String(error);
  // The loader writes a call of an import as `(0 , _lockstep.gpt)`.
  const message = error.message.replace(/\(0 , \w+\.(\w+)\)/g, "$1").replace(/\s+/g, " ");
  if (message.includes(path)) return message;
  for (const line of error.stack?.split("\n") ?? []) {
    const [, file, place] = /((?:[A-Za-z]:)?[/\\][^():]+):(\d+:\d+)\)?$/.exec(line) ?? [];
    if (file === undefined || isForeign(line)) continue;
    const where = file === path ? "" : `${relative(dirname(path), file)}, `;
    return `${message} (${where}line ${place})`;
  }
  return message;
}

/** Whether a line belongs to this package or to an installed one. */
function isForeign(line: string): boolean {
  return /node_modules|node:/.test(line) || isOwnModule(line);
}

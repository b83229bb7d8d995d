/** Loads a run file: a TypeScript module whose default export is `defineRun({…})`. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { createJiti } from "jiti";
import { LockstepError } from "../errors.ts";
import { isRun, type Run } from "./run.ts";

/** Throws FILE_NOT_FOUND, RUN_FILE (a module that does not load or exports no run), or what the file throws. */
export async function loadRun(file: string): Promise<Run> {
  const path = resolve(file);
  if (!existsSync(path)) {
    throw new LockstepError("FILE_NOT_FOUND", `There is no run file "${file}".`, {
      hint: "Give the path of a TypeScript module that exports defineRun({…}).",
    });
  }
  // The file's `lockstep` is this very package, wherever the file lies.
  const self = fileURLToPath(new URL("../index.js", import.meta.url));
  const jiti = createJiti(import.meta.url, { alias: { lockstep: self }, fsCache: false });
  let exported: unknown;
  try {
    exported = await jiti.import(path, { default: true });
  } catch (error) {
    if (error instanceof LockstepError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new LockstepError("RUN_FILE", `The run file "${file}" does not load: ${reason}`, {
      cause: error,
    });
  }
  if (!isRun(exported)) {
    throw new LockstepError("RUN_FILE", `The run file "${file}" exports no run.`, {
      hint: "Write: export default defineRun({ model, data, optimizer, batch, steps });",
    });
  }
  return exported;
}

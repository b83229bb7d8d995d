/** Loads a run file: a TypeScript module whose default export is `defineRun({…})`. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { createJiti } from "jiti";
import { LockstepError } from "../errors.ts";
import { requireFile } from "../files/index.ts";
import { isRun, type Run } from "./run.ts";

/** Throws FILE_NOT_FOUND, RUN_FILE (a module that does not load or exports no run), or what the file throws. */
export async function loadRun(file: string): Promise<Run> {
  const path = resolve(file);
  if (!existsSync(path)) {
    throw new LockstepError("FILE_NOT_FOUND", `There is no run file "${file}".`, {
      hint: "Give the path of a TypeScript module that exports defineRun({…}).",
    });
  }
  requireFile(path);
  // The file's `lockstep` is this very package, wherever the file lies.
  const self = fileURLToPath(new URL("../index.js", import.meta.url));
  const jiti = createJiti(import.meta.url, { alias: { lockstep: self }, fsCache: false });
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

/** The error's words, and the line of the run file that it came from. */
function reasonOf(error: unknown, path: string): string {
  if (!(error instanceof Error)) return String(error);
  // The loader's form of a call of something imported: `(0 , _lockstep.gpt)`.
  const message = error.message.replace(/\(0 , \w+\.(\w+)\)/g, "$1").replace(/\s+/g, " ");
  const frame = error.stack?.split("\n").find((line) => line.includes(`${path}:`));
  const place = frame === undefined ? undefined : /:(\d+:\d+)\)?$/.exec(frame)?.[1];
  return place === undefined || message.includes(path) ? message : `${message} (line ${place})`;
}

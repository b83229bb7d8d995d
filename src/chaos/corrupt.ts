/** A fault of a disk: a checkpoint that is there, and is not what was written. */
import { closeSync, fstatSync, openSync, readdirSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { stepName, stepOf } from "../checkpoint/index.ts";

/**
 * Changes the last byte of a shard of the newest checkpoint. Returns whether there was one.
 * @param checkpoints the folder of a run's own checkpoints
 */
export function corruptNewest(checkpoints: string): boolean {
  try {
    const steps = readdirSync(checkpoints).flatMap((name) => stepOf(name) ?? []);
    const folder = join(checkpoints, stepName(Math.max(...steps)));
    const [shard] = readdirSync(folder).filter((name) => name.endsWith(".safetensors"));
    if (shard === undefined) return false;
    flipLastByte(join(folder, shard));
    return true;
  } catch {
    return false; // there is none yet, or it was just removed because a newer one is there
  }
}

function flipLastByte(path: string): void {
  const file = openSync(path, "r+");
  try {
    const at = fstatSync(file).size - 1;
    const byte = new Uint8Array(1);
    readSync(file, byte, 0, 1, at);
    writeSync(
      file,
      byte.map((value) => value ^ 1),
      0,
      1,
      at,
    );
  } finally {
    closeSync(file);
  }
}

/** A run's checkpoint: everything that the next step reads, in one file that is replaced whole. */
import { existsSync } from "node:fs";
import { LockstepError } from "../errors.ts";
import { readSafetensors, readSafetensorsHeader, writeSafetensors } from "../safetensors/index.ts";
import { formatType, sameType, type Tensor } from "../tensor/index.ts";
import { FILES, type RunFolder } from "./folder.ts";
import type { Run } from "./run.ts";
import type { Trainer } from "./step.ts";

const FORMAT = "lockstep-checkpoint-1";

/** How far a run is. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Of training so far. */
  readonly seconds: number;
  /** Of the last step. */
  readonly trainLoss: number;
}

/** Writes all state of the trainer, or nothing. Returns the path. */
export async function saveCheckpoint(
  folder: RunFolder,
  run: Run,
  trainer: Trainer,
  progress: Progress,
): Promise<string> {
  const path = folder.file(FILES.checkpoint);
  trainer.collect();
  await writeSafetensors(path, prefixed(trainer), {
    format: FORMAT,
    step: String(progress.step),
    seconds: String(progress.seconds),
    trainLoss: String(progress.trainLoss),
    ...identity(run),
  });
  return path;
}

/** What must be the same for a run to go on as if it had never stopped. */
function identity(run: Run): Record<string, string> {
  return { seed: String(run.seed), batch: String(run.batch), optimizer: run.optimizer.name };
}

/**
 * How far the folder's run is, from the head of its checkpoint.
 * Throws CHECKPOINT when there is none or it is of another run, FILE_CORRUPT when it is damaged.
 */
export async function readProgress(folder: RunFolder, run: Run): Promise<Progress> {
  const path = folder.file(FILES.checkpoint);
  if (!existsSync(path)) {
    throw new LockstepError("CHECKPOINT", `There is nothing to resume in "${folder.path}".`, {
      hint: "Start the run without --resume, or give the folder of an earlier one with --out.",
    });
  }
  const { metadata } = await readSafetensorsHeader(path);
  for (const [key, wanted] of Object.entries({ format: FORMAT, ...identity(run) })) {
    const found = metadata[key];
    if (found === wanted) continue;
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${path}" has ${key} ${found ?? "unknown"}; this run has ${wanted}.`,
      { hint: "Resume with the options of the run that was stopped, or take another --out." },
    );
  }
  const step = Number(metadata["step"]);
  const seconds = Number(metadata["seconds"]);
  if (!Number.isSafeInteger(step) || step < 0 || !(seconds >= 0)) {
    throw new LockstepError("FILE_CORRUPT", `The checkpoint "${path}" does not say its step.`);
  }
  return { step, seconds, trainLoss: Number(metadata["trainLoss"]) };
}

/** Puts the folder's checkpoint into the trainer. Throws what `readProgress` throws; the trainer is then as it was. */
export async function loadCheckpoint(
  folder: RunFolder,
  run: Run,
  trainer: Trainer,
): Promise<Progress> {
  const progress = await readProgress(folder, run);
  const path = folder.file(FILES.checkpoint);
  const { tensors } = await readSafetensors(path);
  const wanted = prefixed(trainer);
  for (const [name, place] of wanted) checkTensor(path, name, tensors.get(name), place);
  for (const [name, tensor] of tensors) {
    if (wanted.has(name)) continue;
    throw otherModel(path, `it has ${name} ${formatType(tensor)}, this model has no such tensor`);
  }
  for (const [name, place] of wanted) place.bytes.set((tensors.get(name) as Tensor).bytes);
  trainer.resumeAt(progress.step);
  return progress;
}

function checkTensor(path: string, name: string, found: Tensor | undefined, place: Tensor): void {
  if (found !== undefined && sameType(found, place)) return;
  const what = found === undefined ? "is missing" : `is ${formatType(found)}`;
  throw otherModel(path, `${name} ${what}, this model has ${formatType(place)}`);
}

function otherModel(path: string, difference: string): LockstepError {
  return new LockstepError(
    "CHECKPOINT",
    `The checkpoint "${path}" is of another model: ${difference}.`,
    { hint: "Resume with the model of the run that was stopped." },
  );
}

/** Every tensor of the trainer as a view, under `parameters/`, `slots/` or `states/`. */
function prefixed(trainer: Trainer): Map<string, Tensor> {
  return new Map(
    Object.entries(trainer.tensors()).flatMap(([kind, tensors]) =>
      Object.entries(tensors as Record<string, Tensor>).map(
        ([name, tensor]) => [`${kind}/${name}`, tensor] as const,
      ),
    ),
  );
}

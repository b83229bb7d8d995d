/** The folder of a run: what is written there, and how a run goes on from it. Files are replaced whole. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "../errors.ts";
import { writeFileAtomic } from "../files/index.ts";
import { readSafetensors, weightsSha256, writeSafetensors } from "../safetensors/index.ts";
import type { Report } from "../telemetry/index.ts";
import { formatType, sameType, type Tensor } from "../tensor/index.ts";
import type { Run } from "./run.ts";
import type { Trainer } from "./step.ts";

export interface RunFolder {
  readonly path: string;
  file(name: string): string;
}

/** All that a step needs: parameters, optimizer slots, running statistics, and the number of steps done. */
const CHECKPOINT = "checkpoint.safetensors";
const PARAMETERS = "model.safetensors";

export async function openRunFolder(path: string): Promise<RunFolder> {
  await mkdir(path, { recursive: true });
  return { path, file: (name) => join(path, name) };
}

export interface Checkpoint {
  readonly run: Run;
  readonly trainer: Trainer;
  /** Steps done. */
  readonly step: number;
  /** Of training so far. */
  readonly seconds: number;
}

/** Writes all state of the trainer, or nothing. Returns the path. */
export async function saveCheckpoint(folder: RunFolder, checkpoint: Checkpoint): Promise<string> {
  const { run, trainer, step, seconds } = checkpoint;
  const path = folder.file(CHECKPOINT);
  await writeSafetensors(path, prefixed(trainer), {
    format: "lockstep-checkpoint-1",
    step: String(step),
    seconds: String(seconds),
    seed: String(run.seed),
    batch: String(run.batch),
    optimizer: run.optimizer.name,
  });
  return path;
}

/** Puts the folder's checkpoint into the trainer. Throws CHECKPOINT when there is none or it is of another run. */
export async function loadCheckpoint(
  folder: RunFolder,
  run: Run,
  trainer: Trainer,
): Promise<{ step: number; seconds: number }> {
  const path = folder.file(CHECKPOINT);
  if (!existsSync(path)) {
    throw new LockstepError("CHECKPOINT", `There is nothing to resume in "${folder.path}".`, {
      hint: "Start the run without --resume, or give the folder of an earlier one with --out.",
    });
  }
  const { tensors, metadata } = await readSafetensors(path);
  for (const [key, wanted] of [
    ["format", "lockstep-checkpoint-1"],
    ["seed", String(run.seed)],
    ["batch", String(run.batch)],
    ["optimizer", run.optimizer.name],
  ] as const) {
    if (metadata[key] !== wanted) {
      throw new LockstepError(
        "CHECKPOINT",
        `The checkpoint "${path}" has ${key} ${metadata[key] ?? "unknown"}; this run has ${wanted}.`,
        {
          hint: "Resume with the options of the run that was stopped, or start anew with another --out.",
        },
      );
    }
  }
  const wanted = prefixed(trainer);
  for (const [name, place] of wanted) checkTensor(path, name, tensors.get(name), place);
  for (const [name, place] of wanted) place.bytes.set((tensors.get(name) as Tensor).bytes);
  const step = Number(metadata["step"]);
  trainer.resumeAt(step);
  return { step, seconds: Number(metadata["seconds"]) };
}

function checkTensor(path: string, name: string, found: Tensor | undefined, place: Tensor): void {
  if (found !== undefined && sameType(found, place)) return;
  const what = found === undefined ? "is missing" : `is ${formatType(found)}`;
  throw new LockstepError(
    "CHECKPOINT",
    `The checkpoint "${path}" is of another model: ${name} ${what}, this model has ${formatType(place)}.`,
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

/** Writes `model.safetensors` and returns the SHA-256 of the weights. */
export async function saveParameters(folder: RunFolder, trainer: Trainer): Promise<string> {
  const { parameters, states } = trainer.tensors();
  const tensors = new Map<string, Tensor>(Object.entries({ ...parameters, ...states }));
  await writeSafetensors(folder.file(PARAMETERS), tensors, { format: "pt" });
  return weightsSha256(new Map<string, Tensor>(Object.entries(parameters)));
}

export async function saveReport(folder: RunFolder, report: Report): Promise<void> {
  await writeFileAtomic(folder.file("report.json"), `${JSON.stringify(report, null, 2)}\n`);
}

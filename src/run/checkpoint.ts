/**
 * The checkpoint of a run: everything that the next step reads, in one file that is replaced whole.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { LockstepError } from "../errors.ts";
import {
  eachTensor,
  hashBytes,
  readSafetensorsHeader,
  writeSafetensors,
} from "../safetensors/index.ts";
import { byteLength, formatType, sameType, type Tensor, type TensorType } from "../tensor/index.ts";
import type { Trainer, TrainerTensors } from "../train/index.ts";
import { collectedBytes } from "../train/index.ts";
import { type Beginning, FILES, type RunFolder } from "./folder.ts";
import {
  type Change,
  type Changeable,
  changeableOf,
  changedError,
  changesBetween,
  type Identity,
  sha256Of,
} from "./identity.ts";

const FORMAT = "lockstep-checkpoint-2";
/**
 * The format without identity and hashes. It records only the seed, the batch and the optimizer's
 * name of its run.
 */
const OLD_FORMAT = "lockstep-checkpoint-1";

/**
 * The options that may change without being named after a loss that was not finite, because
 * changing them is the usual cure.
 */
const CURES: readonly Changeable[] = ["learningRate", "schedule", "steps", "clipNorm"];

/** How far a run has come. */
export interface Progress {
  /** The number of committed steps. */
  readonly step: number;
  /** Seconds of training so far. */
  readonly seconds: number;
  /** The loss of the last step. */
  readonly trainLoss: number;
}

/** The head of a checkpoint. */
export interface CheckpointHead extends Progress {
  readonly identity: Identity;
  /** Whether the step after the checkpoint had a loss that is not finite. */
  readonly diverged: boolean;
  /** The SHA-256 of each tensor by name; undefined in an old checkpoint. */
  readonly hashes: Readonly<Record<string, string>> | undefined;
}

export interface SaveOptions extends Progress {
  readonly identity: Identity;
  readonly diverged: boolean;
}

/**
 * Returns the bytes that a run writes: those of the checkpoint, and for a new run also those of
 * both files of weights. A resumed run replaces the files of weights.
 */
export function bytesWritten(trainer: Trainer, beginning: Beginning): number {
  const { parameters, slots, states } = trainer.tensors();
  const bytes = (tensors: Readonly<Record<string, TensorType>>) =>
    Object.values(tensors).reduce((sum, tensor) => sum + byteLength(tensor), 0);
  const weights = bytes(parameters) + bytes(states);
  const saved = collectedBytes(trainer.plan) + weights + bytes(slots);
  return saved + (beginning === "resume" ? 0 : 2 * weights);
}

/** Writes the whole state of the trainer, or nothing. Returns the path. */
export async function saveCheckpoint(
  folder: RunFolder,
  trainer: Trainer,
  options: SaveOptions,
): Promise<string> {
  return write(folder, prefixed(await trainer.read()), options);
}

/** Writes a checkpoint of step 0. It has no tensors, because the seed determines them. */
export function saveBeginning(
  folder: RunFolder,
  options: Pick<SaveOptions, "identity" | "diverged">,
): Promise<string> {
  return write(folder, new Map(), { ...options, step: 0, seconds: 0, trainLoss: Number.NaN });
}

async function write(
  folder: RunFolder,
  tensors: ReadonlyMap<string, Tensor>,
  { step, seconds, trainLoss, identity, diverged }: SaveOptions,
): Promise<string> {
  const path = folder.file(FILES.checkpoint);
  const hashes = Object.fromEntries([...tensors].map(([name, tensor]) => [name, hashOf(tensor)]));
  const said = {
    format: FORMAT,
    step: String(step),
    seconds: String(seconds),
    trainLoss: String(trainLoss),
    diverged: String(diverged),
    identity: JSON.stringify(identity),
    hashes: JSON.stringify(hashes),
  };
  await writeSafetensors(path, tensors, { ...said, sha256: hashOfHead(said) });
  return path;
}

/** Hashes the head, so that a flipped bit in it is found like one in a tensor. */
function hashOfHead(said: Readonly<Record<string, string>>): string {
  const names = Object.keys(said).sort();
  return sha256Of(names.flatMap((name) => [name, said[name] ?? ""]));
}

/** Hashes the type and the bytes. */
function hashOf(tensor: Tensor): string {
  const hash = createHash("sha256").update(formatType(tensor));
  hashBytes(hash, tensor);
  return hash.digest("hex");
}

/**
 * Reads the head of the folder's checkpoint.
 * @throws CHECKPOINT when there is none, or none that this version understands
 * @throws FILE_CORRUPT when the head is damaged
 */
export async function readCheckpointHead(folder: RunFolder): Promise<CheckpointHead> {
  const path = folder.file(FILES.checkpoint);
  if (!existsSync(path)) {
    throw new LockstepError("CHECKPOINT", `There is nothing to resume in "${folder.path}".`, {
      hint: "Start the run without --resume, or name the folder of an earlier run with --out.",
    });
  }
  const { metadata } = await readSafetensorsHeader(path);
  const { format, step, seconds, trainLoss, diverged, sha256, ...rest } = metadata;
  if (format !== FORMAT && format !== OLD_FORMAT) {
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${path}" has the format ${format ?? "unknown"}, which this version cannot read.`,
      {
        hint: "Resume with the version of lockstep that wrote it, or name another folder with --out.",
      },
    );
  }
  const { sha256: _, ...said } = metadata;
  if (format === FORMAT && sha256 !== hashOfHead(said)) throw damaged(path, "its head");
  const progress = { step: Number(step), seconds: Number(seconds), trainLoss: Number(trainLoss) };
  if (!Number.isSafeInteger(progress.step) || progress.step < 0 || !(progress.seconds >= 0)) {
    throw new LockstepError("FILE_CORRUPT", `The checkpoint "${path}" does not record its step.`);
  }
  if (format === FORMAT) {
    const identity = JSON.parse(rest["identity"] ?? "{}") as Identity;
    const hashes = JSON.parse(rest["hashes"] ?? "{}") as Record<string, string>;
    return { ...progress, identity, hashes, diverged: diverged === "true" };
  }
  const { seed = "", batch = "", optimizer = "" } = rest;
  const identity = { seed, batch, "optimizer.name": optimizer };
  return { ...progress, identity, hashes: undefined, diverged: false };
}

/**
 * Returns the options that differ in a resumed run and may differ: they were named, or are a cure
 * after a divergence. Options that `now` does not have are not compared.
 * @throws CHECKPOINT naming the options that differ and may not
 */
export function checkIdentity(
  folder: RunFolder,
  { identity, diverged, hashes }: CheckpointHead,
  now: Identity,
  named: readonly Changeable[] = [],
): Change[] {
  const tops = new Set(Object.keys(now).map(changeableOf));
  const before = only(identity, (name) => tops.has(changeableOf(name)));
  const known = only(now, (name) => hashes !== undefined || name in identity);
  const changes = changesBetween(before, known);
  const allowed = new Set<string>(diverged ? [...named, ...CURES] : named);
  const others = changes.filter(({ name }) => !allowed.has(changeableOf(name)));
  if (others.length > 0) throw changedError(others, folder.file(FILES.checkpoint));
  return changes;
}

function only(identity: Identity, wanted: (name: string) => boolean): Identity {
  return Object.fromEntries(Object.entries(identity).filter(([name]) => wanted(name)));
}

/**
 * Loads the folder's checkpoint into the trainer. Returns the hash of everything that was loaded.
 * After an error the trainer is unchanged.
 * @throws CHECKPOINT when a tensor is damaged or the model is different; FILE_CORRUPT
 */
export async function loadCheckpoint(
  folder: RunFolder,
  trainer: Trainer,
  { step, hashes }: CheckpointHead,
): Promise<string> {
  if (step === 0) return hashOfState(trainer);
  const path = folder.file(FILES.checkpoint);
  const wanted = prefixed(trainer.tensors());
  const { entries } = await readSafetensorsHeader(path);
  const types = new Map(entries.map((entry) => [entry.name, entry]));
  for (const [name, place] of wanted) checkTensor(path, name, types.get(name), place);
  const found: string[] = [];
  // The file is read twice, tensor by tensor: it is checked whole before anything is written, and
  // no process has room for all tensors at once.
  for await (const [name, tensor] of eachTensor(path)) {
    if (!wanted.has(name)) {
      throw otherModel(path, `it has ${name} ${formatType(tensor)}, this model has no such tensor`);
    }
    const hash = hashOf(tensor);
    if (hashes !== undefined && hash !== hashes[name]) throw damaged(path, `the tensor "${name}"`);
    found.push(name, hash);
  }
  for await (const [name, tensor] of eachTensor(path)) trainer.write(unprefixed(name, tensor));
  trainer.resumeAt(step);
  return sha256Of(found);
}

/** Returns the hash of everything that a trainer begins with. */
export async function hashOfState(trainer: Trainer): Promise<string> {
  if (!trainer.isWhole) {
    const found: string[] = [];
    for await (const [name, tensor] of trainer.beginning()) found.push(name, hashOf(tensor));
    return sha256Of(found);
  }
  const { parameters, states } = await trainer.read();
  return sha256Of(
    Object.entries({ ...parameters, ...states }).flatMap(([name, tensor]) => [
      name,
      hashOf(tensor),
    ]),
  );
}

function damaged(path: string, what: string): LockstepError {
  return new LockstepError(
    "CHECKPOINT",
    `The checkpoint "${path}" is damaged: ${what} is not as it was written.`,
    {
      hint: "Use an older copy of the file, or start again with --anew. The disk or the copy may be faulty.",
      fields: { path },
    },
  );
}

function checkTensor(
  path: string,
  name: string,
  found: TensorType | undefined,
  place: TensorType,
): void {
  if (found !== undefined && sameType(found, place)) return;
  const what = found === undefined ? "is missing" : `is ${formatType(found)}`;
  throw otherModel(path, `${name} ${what}, this model has ${formatType(place)}`);
}

function otherModel(path: string, difference: string): LockstepError {
  return new LockstepError(
    "CHECKPOINT",
    `The checkpoint "${path}" belongs to a different model: ${difference}.`,
    { hint: "Resume with the model of the run that was stopped." },
  );
}

/** Reverses `prefixed` for one tensor. */
function unprefixed(name: string, tensor: Tensor): Partial<TrainerTensors<Tensor>> {
  const end = name.indexOf("/");
  return { [name.slice(0, end)]: { [name.slice(end + 1)]: tensor } };
}

/** Prefixes the name of every tensor with `parameters/`, `slots/` or `states/`. */
function prefixed<T>(all: TrainerTensors<T>): Map<string, T> {
  return new Map(
    Object.entries(all).flatMap(([kind, tensors]) =>
      Object.entries(tensors as Record<string, T>).map(
        ([name, tensor]) => [`${kind}/${name}`, tensor] as const,
      ),
    ),
  );
}

/** A run's checkpoint: everything that the next step reads, in one file that is replaced whole. */
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
/** Without identity and hashes: all that it says of its run is its seed, its batch and the optimizer's name. */
const OLD_FORMAT = "lockstep-checkpoint-1";

/** After a loss that was not finite, what may be another without being named: that is what a person tries next. */
const CURES: readonly Changeable[] = ["learningRate", "schedule", "steps", "clipNorm"];

/** How far a run is. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Of training so far. */
  readonly seconds: number;
  /** Of the last step. */
  readonly trainLoss: number;
}

/** What the head of a checkpoint says. */
export interface CheckpointHead extends Progress {
  readonly identity: Identity;
  /** Whether the step after it had a loss that is not finite. */
  readonly diverged: boolean;
  /** SHA-256 of each tensor by name; undefined in an old checkpoint. */
  readonly hashes: Readonly<Record<string, string>> | undefined;
}

export interface SaveOptions extends Progress {
  readonly identity: Identity;
  readonly diverged: boolean;
}

/** Of the checkpoint, and for a new run also of both files of weights: a resumed one replaces them. */
export function bytesWritten(trainer: Trainer, beginning: Beginning): number {
  const { parameters, slots, states } = trainer.tensors();
  const bytes = (tensors: Readonly<Record<string, TensorType>>) =>
    Object.values(tensors).reduce((sum, tensor) => sum + byteLength(tensor), 0);
  const weights = bytes(parameters) + bytes(states);
  const saved = collectedBytes(trainer.plan) + weights + bytes(slots);
  return saved + (beginning === "resume" ? 0 : 2 * weights);
}

/** Writes all state of the trainer, or nothing. Returns the path. */
export async function saveCheckpoint(
  folder: RunFolder,
  trainer: Trainer,
  options: SaveOptions,
): Promise<string> {
  return write(folder, prefixed(await trainer.read()), options);
}

/** A checkpoint of step 0, without tensors: the seed makes them. */
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

/** So that a bit that flips in the head is found as one in a tensor is. */
function hashOfHead(said: Readonly<Record<string, string>>): string {
  const names = Object.keys(said).sort();
  return sha256Of(names.flatMap((name) => [name, said[name] ?? ""]));
}

/** Over the type and the bytes. */
function hashOf(tensor: Tensor): string {
  const hash = createHash("sha256").update(formatType(tensor));
  hashBytes(hash, tensor);
  return hash.digest("hex");
}

/**
 * What the folder's checkpoint says of its run.
 * Throws CHECKPOINT when there is none or none that is understood, FILE_CORRUPT when its head is damaged.
 */
export async function readCheckpointHead(folder: RunFolder): Promise<CheckpointHead> {
  const path = folder.file(FILES.checkpoint);
  if (!existsSync(path)) {
    throw new LockstepError("CHECKPOINT", `There is nothing to resume in "${folder.path}".`, {
      hint: "Start the run without --resume, or give the folder of an earlier one with --out.",
    });
  }
  const { metadata } = await readSafetensorsHeader(path);
  const { format, step, seconds, trainLoss, diverged, sha256, ...rest } = metadata;
  if (format !== FORMAT && format !== OLD_FORMAT) {
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${path}" has the format ${format ?? "unknown"}, which this version does not know.`,
      { hint: "Resume with the version of lockstep that wrote it, or take another --out." },
    );
  }
  const { sha256: _, ...said } = metadata;
  if (format === FORMAT && sha256 !== hashOfHead(said)) throw damaged(path, "its head");
  const progress = { step: Number(step), seconds: Number(seconds), trainLoss: Number(trainLoss) };
  if (!Number.isSafeInteger(progress.step) || progress.step < 0 || !(progress.seconds >= 0)) {
    throw new LockstepError("FILE_CORRUPT", `The checkpoint "${path}" does not say its step.`);
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
 * What is another in a run that goes on, and may be: it was named, or it is a cure after a divergence. What `now` says nothing
 * about is not compared. Throws CHECKPOINT naming what differs and may not.
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
 * Puts the folder's checkpoint into the trainer. Returns the hash of all that was loaded.
 * Throws CHECKPOINT for another model's or a damaged tensor, FILE_CORRUPT; the trainer is then as it was.
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
  // Twice, tensor by tensor: nothing is written before all is known to be whole, and no process has room for all at once.
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

/** The hash of all that a trainer begins with. */
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
      hint: "Take an older copy of the file, or begin anew: --anew. The disk or the copy may be faulty.",
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
    `The checkpoint "${path}" is of another model: ${difference}.`,
    { hint: "Resume with the model of the run that was stopped." },
  );
}

/** The same the other way, for one tensor. */
function unprefixed(name: string, tensor: Tensor): Partial<TrainerTensors<Tensor>> {
  const end = name.indexOf("/");
  return { [name.slice(0, end)]: { [name.slice(end + 1)]: tensor } };
}

/** Every tensor under `parameters/`, `slots/` or `states/`. */
function prefixed<T>(all: TrainerTensors<T>): Map<string, T> {
  return new Map(
    Object.entries(all).flatMap(([kind, tensors]) =>
      Object.entries(tensors as Record<string, T>).map(
        ([name, tensor]) => [`${kind}/${name}`, tensor] as const,
      ),
    ),
  );
}

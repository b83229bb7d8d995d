/**
 * The checkpoint from which a run continues: which one, whether it belongs to the run, and how it is
 * loaded.
 */
import { existsSync } from "node:fs";
import {
  type CheckpointStore,
  damaged,
  describeFault,
  manifestSha256,
  readRangeOf,
  type Source,
} from "../checkpoint/index.ts";
import { LockstepError } from "../errors.ts";
import { formatType, sameType, type TensorType } from "../tensor/index.ts";
import { collectedBytes, type StateParts, stateBytes, type Trainer } from "../train/index.ts";
import { type Beginning, OLD_CHECKPOINT, type RunFolder } from "./folder.ts";
import { type CheckpointHead, hashOf } from "./head.ts";
import {
  type Change,
  type Changeable,
  changeableOf,
  changedError,
  changesBetween,
  type Identity,
  sha256Of,
} from "./identity.ts";
import { readOldCheckpoint } from "./old-checkpoint.ts";
import type { Run } from "./run.ts";

/** Bytes of a tensor that are read and written at once. */
const CHUNK_BYTES = 2 ** 22;
const READ_AT_ONCE = 4;

/**
 * The options that may change without being named after a loss that was not finite, because
 * changing them is the usual cure.
 */
const CURES: readonly Changeable[] = ["learningRate", "schedule", "steps", "clipNorm"];

/**
 * Returns the bytes that a run has on disk at most: checkpoints, one more while it is written, and
 * for a new run also both files of weights. A resumed run replaces those.
 */
export function bytesWritten(
  trainer: Trainer,
  run: Run,
  beginning: Beginning,
  { isOnDisk }: CheckpointStore,
): number {
  const { parameters, slots, states } = trainer.tensors();
  const bytes = (tensors: Readonly<Record<string, TensorType>>) =>
    stateBytes(Object.values(tensors));
  const weights = bytes(parameters) + bytes(states);
  const one = isOnDisk ? weights + bytes(slots) : 0;
  const collected = collectedBytes(trainer.plan);
  if (beginning === "resume") return collected + one;
  const saves = Math.ceil(run.steps / run.checkpointEvery);
  const forGood = run.keepEvery === undefined ? 0 : Math.floor(run.steps / run.keepEvery);
  return collected + Math.min(saves, run.keepLast + 1 + forGood) * one + 2 * weights;
}

/** A checkpoint that cannot be used, and why. */
export interface Unusable {
  readonly step: number;
  readonly error: Error;
}

/**
 * Opens the newest checkpoint of a step below `below` whose head can be read. `unusable` are newer
 * ones.
 */
export async function openNewest(
  folder: RunFolder,
  below = Number.POSITIVE_INFINITY,
): Promise<{ head?: CheckpointHead; unusable: readonly Unusable[] }> {
  const unusable: Unusable[] = [];
  const { checkpoints } = folder;
  let old = await openOld(folder);
  if (old !== undefined && old.step >= below) old = undefined;
  for (const step of (await checkpoints.steps()).reverse()) {
    if (step >= below) continue;
    if (old !== undefined && "source" in old && old.step > step) break;
    try {
      return { head: await openStep(checkpoints, step), unusable };
    } catch (error) {
      // What cannot be reached now may be whole.
      if (error instanceof LockstepError && error.code === "STORE") throw error;
      unusable.push({ step, error: asError(error) });
    }
  }
  if (old === undefined) return { unusable };
  return "source" in old ? { head: old, unusable } : { unusable: [...unusable, old] };
}

async function openOld(folder: RunFolder): Promise<CheckpointHead | Unusable | undefined> {
  const path = folder.file(OLD_CHECKPOINT);
  if (!folder.checkpoints.isOnDisk || !existsSync(path)) return undefined;
  return readOldCheckpoint(path).catch((error: unknown) => ({ step: -1, error: asError(error) }));
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** @throws CHECKPOINT when the manifest is damaged; FILE_NOT_FOUND, IO_FAILED, STORE */
export async function openStep(
  checkpoints: CheckpointStore,
  step: number,
): Promise<CheckpointHead> {
  const manifest = await checkpoints.manifest(step);
  const { seconds, trainLoss, identity, diverged, ledger } = manifest;
  return {
    step,
    seconds,
    trainLoss: trainLoss ?? Number.NaN,
    identity,
    diverged,
    ledger,
    path: checkpoints.pathOf(step),
    isOld: false,
    state: manifestSha256(manifest),
    source: checkpoints.source(step, manifest),
  };
}

/** Reads every shard. @throws CHECKPOINT naming the first that is damaged; STORE */
export async function requireWhole({ path, source }: CheckpointHead): Promise<void> {
  for (const [shard, file] of source.files.entries()) {
    const fault = await source.check(shard);
    if (fault !== undefined) throw damaged(path, describeFault(file, fault));
  }
}

/**
 * Reads the head of the folder's newest checkpoint that has one.
 * @throws CHECKPOINT when there is none, or none that this version understands
 * @throws FILE_CORRUPT when the only one is damaged
 */
export async function readCheckpointHead(folder: RunFolder): Promise<CheckpointHead> {
  const { head, unusable } = await openNewest(folder);
  if (head !== undefined) return head;
  throw noneUsable(folder, unusable);
}

/** The error of a folder without a checkpoint that can be used. @param unusable newest first */
export function noneUsable(folder: RunFolder, unusable: readonly Unusable[]): Error {
  const path = folder.checkpoints.isOnDisk ? folder.path : folder.checkpoints.place;
  const [newest, ...others] = unusable;
  if (newest === undefined) {
    return new LockstepError("CHECKPOINT", `There is nothing to resume in "${path}".`, {
      hint: "Start the run without --resume, or name the folder of an earlier run with --out.",
    });
  }
  if (others.length === 0) return newest.error;
  const [why] = newest.error.message.split("\n");
  const text = `None of the ${unusable.length} checkpoints in "${path}" can be used. The newest: ${why}`;
  // One that cannot be read now may be whole: then the run must not begin again.
  const codes = unusable.map(({ error }) => (error instanceof LockstepError ? error.code : "BUG"));
  const isDamage = codes.every((code) => code === "CHECKPOINT" || code === "FILE_CORRUPT");
  return new LockstepError(isDamage ? "CHECKPOINT" : "IO_FAILED", text, {
    hint: "`lockstep checkpoints DIR --verify` says what is wrong with each. Start again with --anew, or bring back a copy.",
    fields: { path },
    cause: newest.error,
  });
}

/**
 * Returns the options that differ in a resumed run and may differ: they were named, or are a cure
 * after a divergence. Options that `now` does not have are not compared.
 * @throws CHECKPOINT naming the options that differ and may not
 */
export function checkIdentity(
  { identity, diverged, isOld, path }: CheckpointHead,
  now: Identity,
  named: readonly Changeable[] = [],
): Change[] {
  const tops = new Set(Object.keys(now).map(changeableOf));
  const before = only(identity, (name) => tops.has(changeableOf(name)));
  const known = only(now, (name) => !isOld || name in identity);
  const changes = changesBetween(before, known);
  const allowed = new Set<string>(diverged ? [...named, ...CURES] : named);
  const others = changes.filter(({ name }) => !allowed.has(changeableOf(name)));
  if (others.length > 0) throw changedError(others, path);
  return changes;
}

function only(identity: Identity, wanted: (name: string) => boolean): Identity {
  return Object.fromEntries(Object.entries(identity).filter(([name]) => wanted(name)));
}

/**
 * Loads a checkpoint into the trainer: of each tensor the bytes that this rank holds. Its shards
 * were checked before. Returns the hash of all that the checkpoint holds.
 * @throws CHECKPOINT when the model is different, and the trainer is then unchanged; FILE_CORRUPT,
 *   IO_FAILED
 */
export async function loadCheckpoint(trainer: Trainer, head: CheckpointHead): Promise<string> {
  const { path, step, source, state } = head;
  if (step === 0) return hashOfState(trainer);
  const parts = trainer.parts();
  const wanted = new Map(parts.list().map((tensor) => [tensor.name, tensor]));
  for (const [name, place] of wanted) checkTensor(path, name, source.tensors.get(name), place);
  for (const [name, found] of source.tensors) {
    if (wanted.has(name)) continue;
    throw otherModel(path, `it has ${name} ${formatType(found)}, this model has no such tensor`);
  }
  try {
    await readAll(source, parts);
  } finally {
    await source.close();
  }
  trainer.resumeAt(step);
  return state;
}

/** Several ranges are read at once, because a store may be far away. */
async function readAll(source: Source, parts: StateParts): Promise<void> {
  const chunks = chunksOf(parts);
  const readNext = async () => {
    const buffer = new Uint8Array(CHUNK_BYTES);
    for (const { name, at, byteLength } of chunks) {
      const chunk = buffer.subarray(0, byteLength);
      await readRangeOf(source, name, at, chunk);
      parts.write(name, at, chunk);
    }
  };
  // After a failure too, nothing writes into the trainer's memory any more when this ends.
  const ended = await Promise.allSettled(Array.from({ length: READ_AT_ONCE }, readNext));
  for (const end of ended) if (end.status === "rejected") throw end.reason;
}

function* chunksOf(parts: StateParts) {
  for (const { name, from, to } of parts.own()) {
    for (let at = from; at < to; at += CHUNK_BYTES) {
      yield { name, at, byteLength: Math.min(CHUNK_BYTES, to - at) };
    }
  }
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

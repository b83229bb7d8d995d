/**
 * Reads the checkpoint of a run of an earlier version: one safetensors file, with its head among the
 * metadata. It is never written any more.
 */
import { damaged, filesOf, type Source } from "../checkpoint/index.ts";
import { LockstepError } from "../errors.ts";
import { eachTensor, type Header, readSafetensorsHeader } from "../safetensors/index.ts";
import { type CheckpointHead, hashOf } from "./head.ts";
import { type Identity, sha256Of } from "./identity.ts";

const FORMAT = "lockstep-checkpoint-2";
/**
 * The format without identity and hashes. It records only the seed, the batch and the optimizer's
 * name of its run.
 */
const FIRST_FORMAT = "lockstep-checkpoint-1";

/**
 * @throws CHECKPOINT when the head is damaged or of another version
 * @throws FILE_CORRUPT when the file is damaged
 */
export async function readOldCheckpoint(path: string): Promise<CheckpointHead> {
  const header = await readSafetensorsHeader(path);
  const { format, step, seconds, trainLoss, diverged, sha256, ...rest } = header.metadata;
  if (format !== FORMAT && format !== FIRST_FORMAT) {
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${path}" has the format ${format ?? "unknown"}, which this version cannot read.`,
      {
        hint: "Resume with the version of lockstep that wrote it, or name another folder with --out.",
      },
    );
  }
  const { sha256: _, ...said } = header.metadata;
  if (format === FORMAT && sha256 !== hashOfHead(said)) throw damaged(path, "its head is changed");
  const progress = { step: Number(step), seconds: Number(seconds), trainLoss: Number(trainLoss) };
  if (!Number.isSafeInteger(progress.step) || progress.step < 0 || !(progress.seconds >= 0)) {
    throw new LockstepError("FILE_CORRUPT", `The checkpoint "${path}" does not record its step.`);
  }
  const hashes = JSON.parse(rest["hashes"] ?? "{}") as Record<string, string>;
  const { seed = "", batch = "", optimizer = "" } = rest;
  const isOld = format === FIRST_FORMAT;
  return {
    ...progress,
    path,
    isOld,
    diverged: diverged === "true",
    identity: isOld
      ? { seed, batch, "optimizer.name": optimizer }
      : (JSON.parse(rest["identity"] ?? "{}") as Identity),
    state: sha256Of(isOld ? [path, String(step)] : Object.entries(hashes).flat()),
    source: sourceOfFile(path, header, isOld ? undefined : hashes),
  };
}

/** Hashes the head, so that a flipped bit in it is found like one in a tensor. */
function hashOfHead(said: Readonly<Record<string, string>>): string {
  const names = Object.keys(said).sort();
  return sha256Of(names.flatMap((name) => [name, said[name] ?? ""]));
}

function sourceOfFile(
  path: string,
  { entries }: Header,
  hashes: Readonly<Record<string, string>> | undefined,
): Source {
  return {
    ...filesOf([path]),
    byteLength: Math.max(0, ...entries.map(({ end }) => end)),
    tensors: new Map(
      entries.map(({ name, dtype, shape, start, end }) => {
        const parts = start === end ? [] : [{ shard: 0, start, end, from: 0 }];
        return [name, { dtype, shape, parts }];
      }),
    ),
    check: async () => {
      if (hashes === undefined) return undefined;
      for await (const [name, tensor] of eachTensor(path)) {
        if (hashOf(tensor) !== hashes[name]) return "other bytes";
      }
      return undefined;
    },
  };
}

/**
 * The manifest of a checkpoint: what it is of, which shards it has, and where each tensor lies in
 * them. This file turns it into text and back, checked to the last field; it opens no file.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import { DTYPES, type DType } from "../tensor/index.ts";
import { faultOf, type StoredTensor } from "./assemble.ts";
import { endOf, type LedgerRecord, ledgerSchema } from "./ledger.ts";

export const MANIFEST = "manifest.json";
const FORMAT = "lockstep-checkpoint-3";

/** The largest manifest that is read. */
const MAX_MANIFEST_BYTES = 2 ** 28;

export interface Shard {
  /** The name of the file in the checkpoint's folder. */
  readonly file: string;
  readonly byteLength: number;
  /** Of the whole file, as `sha256sum` prints it. */
  readonly sha256: string;
}

export interface Manifest {
  /** The version of lockstep that wrote it. */
  readonly lockstep: string;
  /** The number of committed steps. */
  readonly step: number;
  /** The number of samples in them: the first position of the next step. */
  readonly position: number;
  readonly seed: number;
  /** Seconds of training so far. */
  readonly seconds: number;
  /** The loss of the last step; null if it is not known. */
  readonly trainLoss: number | null;
  /** Whether the step after the checkpoint had a loss that is not finite. */
  readonly diverged: boolean;
  /** Which samples are in it. Not there in checkpoints of earlier versions. */
  readonly ledger?: LedgerRecord | undefined;
  /** What the weights depend on, as short texts by name, and the hash of it. */
  readonly identity: Readonly<Record<string, string>>;
  readonly identitySha256: string;
  readonly shards: readonly Shard[];
  /** By `parameters/NAME`, `slots/NAME` or `states/NAME`. */
  readonly tensors: Readonly<Record<string, StoredTensor>>;
}

const count = z.int().min(0);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const dtype = z.custom<DType>((value) => typeof value === "string" && Object.hasOwn(DTYPES, value));
const part = z.strictObject({ shard: count, start: count, end: count, from: count });
const schema = z.strictObject({
  format: z.literal(FORMAT),
  lockstep: z.string(),
  step: count,
  position: count,
  seed: count,
  seconds: z.number().min(0),
  trainLoss: z.number().nullable(),
  diverged: z.boolean(),
  ledger: ledgerSchema.optional(),
  identity: z.record(z.string(), z.string()),
  identitySha256: sha256,
  shards: z.array(
    z.strictObject({ file: z.string().regex(/^[\w.-]+\.safetensors$/), byteLength: count, sha256 }),
  ),
  tensors: z.record(
    z.string(),
    z.strictObject({ dtype, shape: z.array(count), parts: z.array(part) }),
  ),
});

/** The manifest as text. It ends with a hash of all that stands before. */
export function manifestText(manifest: Manifest): string {
  const body = { format: FORMAT, ...manifest };
  return `${JSON.stringify({ ...body, sha256: hashOf(body) }, null, 1)}\n`;
}

/** The hash at the end of the text: equal for checkpoints that hold the same bytes. */
export function manifestSha256(manifest: Manifest): string {
  return hashOf({ format: FORMAT, ...manifest });
}

function hashOf(body: object): string {
  return createHash("sha256").update(JSON.stringify(body)).digest("hex");
}

/** The manifest of a checkpoint, where it lies. */
export interface ManifestFile {
  /** Names the checkpoint in errors, as `path` names the manifest. */
  readonly checkpoint: string;
  readonly path: string;
  /** The step that the checkpoint has by its name. */
  readonly step: number;
  /** Undefined where there is none. */
  readonly byteLength: number | undefined;
  read(): Promise<Uint8Array>;
}

/**
 * @throws CHECKPOINT when it is not there, was changed after it was written, is of another step or
 *   version, or does not make sense; and what `read` throws
 */
export async function readManifest(file: ManifestFile): Promise<Manifest> {
  const { checkpoint, path, step, byteLength, read } = file;
  if (byteLength === undefined) throw damaged(checkpoint, `it has no ${MANIFEST}`);
  if (byteLength > MAX_MANIFEST_BYTES) {
    throw damagedManifest(path, `it has ${byteLength} bytes, which is too many for a manifest`);
  }
  const manifest = parseManifest(new TextDecoder().decode(await read()), path);
  if (manifest.step === step) return manifest;
  throw damagedManifest(
    path,
    `it is of step ${manifest.step}, but lies where step ${step} belongs`,
  );
}

/** @param path names the manifest in errors */
function parseManifest(text: string, path: string): Manifest {
  let parsed: Record<string, unknown>;
  try {
    parsed = z.looseObject({ format: z.string() }).parse(JSON.parse(text));
  } catch (cause) {
    throw damagedManifest(path, "it is not a manifest", cause);
  }
  if (parsed["format"] !== FORMAT) {
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${path}" has the format ${String(parsed["format"])}, which this version cannot read.`,
      { hint: "Resume with the version of lockstep that wrote it.", fields: { path } },
    );
  }
  const { sha256: said, ...body } = parsed;
  if (said !== hashOf(body)) throw damagedManifest(path, "it is not as it was written");
  const checked = schema.safeParse(body);
  if (!checked.success) {
    const [issue] = checked.error.issues;
    throw damagedManifest(path, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
  }
  const { format: _, ...manifest } = checked.data;
  const sizes = manifest.shards.map((shard) => shard.byteLength);
  for (const [name, tensor] of Object.entries(manifest.tensors)) {
    const fault = faultOf(tensor, sizes);
    if (fault !== undefined) throw damagedManifest(path, `the tensor "${name}" ${fault}`);
  }
  const { step, position, ledger } = manifest;
  const entered = ledger && endOf(ledger);
  if (entered !== undefined && (entered.step !== step || entered.position !== position)) {
    throw damagedManifest(path, `its ledger ends with step ${entered.step}, and not with ${step}`);
  }
  return manifest;
}

/** @param path of the checkpoint; `what` is the end of a sentence */
export function damaged(path: string, what: string): LockstepError {
  return new LockstepError("CHECKPOINT", `The checkpoint "${path}" is damaged: ${what}.`, {
    hint: "Use an older checkpoint, or start again with --anew. The disk or the copy may be faulty.",
    fields: { path },
  });
}

function damagedManifest(path: string, what: string, cause?: unknown): LockstepError {
  return new LockstepError("CHECKPOINT", `The checkpoint manifest "${path}" is damaged: ${what}.`, {
    hint: "Use an older checkpoint, or start again with --anew. Was the file edited by hand?",
    fields: { path },
    cause,
  });
}

/**
 * A short digest of what data holds. It is equal for data with equal samples, from any kind of
 * file.
 */
import { createHash, type Hash } from "node:crypto";
import type { Dataset, ModelInput, SampleSet, TextPart } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { byteLength, type Tensor, tensorFromBytes } from "../tensor/index.ts";

/**
 * Data of more bytes than this, as the model sees it, is sampled in evenly spread blocks of this
 * many bytes in total.
 */
const MAX_BYTES = 2 ** 27;
/** Text of up to this many bytes is hashed as a whole. */
const MAX_TEXT_BYTES = 2 ** 29;
/** The number of bytes that are read at once. */
const BLOCK_BYTES = 2 ** 20;
const DIGITS = 16;

export interface Fingerprint {
  /** `12 samples, 3 held out, content 0f3a…`. */
  readonly data: string;
  /** The digest of the tokenizer, for text. */
  readonly tokenizer?: string;
}

/** @throws what reading the samples throws, and the reason of `signal` */
export async function fingerprintOf(
  { train, validation, text }: Dataset,
  inputs: readonly ModelInput[],
  signal: AbortSignal,
): Promise<Fingerprint> {
  const hash = createHash("sha256");
  const add = async (samples: SampleSet | undefined, part: TextPart | undefined) => {
    if (samples === undefined) return;
    hash.update(`${samples.length} `);
    if (part !== undefined && part.byteLength <= MAX_TEXT_BYTES) await addText(hash, part, signal);
    else await addSamples(hash, samples, inputs, signal);
  };
  await add(train, text?.train);
  await add(validation, text?.validation);
  const counts = `${train.length} samples, ${validation?.length ?? 0} held out`;
  const data = `${counts}, content ${digits(hash)}`;
  if (text === undefined) return { data };
  return { data, tokenizer: digits(createHash("sha256").update(text.tokenizer.toJson())) };
}

/** @throws DATA_DIFFERS when the data is not what it must be */
export function checkHolds(found: Fingerprint, wanted: Fingerprint | undefined): void {
  if (wanted === undefined) return;
  const [what, here, there] =
    found.data !== wanted.data
      ? ["data", found.data, wanted.data]
      : ["tokenizer", found.tokenizer ?? "none", wanted.tokenizer ?? "none"];
  if (here === there) return;
  throw new LockstepError(
    "DATA_DIFFERS",
    `The ${what} here is ${here}, but the job was made with ${there}.`,
    { hint: "Copy the files that the job was made with to this place, or make the job again." },
  );
}

async function addText(hash: Hash, part: TextPart, signal: AbortSignal): Promise<void> {
  for await (const piece of part.bytes()) {
    signal.throwIfAborted();
    hash.update(piece);
  }
}

async function addSamples(
  hash: Hash,
  samples: SampleSet,
  inputs: readonly ModelInput[],
  signal: AbortSignal,
): Promise<void> {
  const each = inputs.reduce((sum, { type }) => {
    return sum + byteLength({ ...type, shape: type.shape.slice(1) });
  }, 1);
  const count = Math.max(1, Math.min(samples.length, Math.floor(BLOCK_BYTES / each)));
  const blocks = Math.ceil(samples.length / count);
  const looked = Math.min(blocks, Math.max(2, Math.floor(MAX_BYTES / (count * each))));
  for (let block = 0; block < looked; block++) {
    signal.throwIfAborted();
    // Blocks are taken at even distances, with the first and the last.
    const at = looked === 1 ? 0 : Math.round((block * (blocks - 1)) / (looked - 1));
    const first = at * count;
    const indices = Array.from(
      { length: Math.min(count, samples.length - first) },
      (_, index) => first + index,
    );
    const tensors = tensorsFor(inputs, indices.length);
    await samples.read(indices, tensors);
    for (const { bytes } of Object.values(tensors)) hash.update(bytes);
  }
}

function tensorsFor(inputs: readonly ModelInput[], count: number): Record<string, Tensor> {
  return Object.fromEntries(
    inputs.map(({ name, type: { dtype, shape } }) => {
      const whole = [count, ...shape.slice(1)];
      const bytes = new Uint8Array(byteLength({ dtype, shape: whole }));
      return [name, tensorFromBytes(dtype, whole, bytes)];
    }),
  );
}

function digits(hash: Hash): string {
  return hash.digest("hex").slice(0, DIGITS);
}

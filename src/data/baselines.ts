/**
 * What a model of text must beat: a bigram model of bytes, and gzip. Counting pairs of bytes is the
 * one loop over data here; a graph would take a hundred times as long for it, and it runs once in a
 * run.
 */
import { createGzip } from "node:zlib";
import type { TextPart } from "./source.ts";

/**
 * The most bytes that a baseline reads, from the start of each text. More would hardly change its
 * digits.
 */
const MAX_TRAIN_BYTES = 2 ** 28;
const MAX_VALIDATION_BYTES = 2 ** 26;

/**
 * Fits a bigram model to `train` and measures it on `validation`. Its probability of byte b after
 * byte a is (n(a,b) + α·p(b)) / (n(a) + α), with p from the single bytes (Dirichlet smoothing:
 * MacKay and Peto, "A hierarchical Dirichlet language model", 1995) and the α that best predicts
 * each pair of the training text from all others. Of long texts, the first 256 MiB train it, and
 * the first 64 MiB measure it.
 */
export async function bigramBitsPerByte(train: TextPart, validation: TextPart): Promise<number> {
  const known = await countPairs(train.bytes(), MAX_TRAIN_BYTES);
  const seen = await countPairs(validation.bytes(), MAX_VALIDATION_BYTES);
  const single = singleProbabilities(known);
  let best = { alpha: 1, bits: Number.POSITIVE_INFINITY };
  for (let alpha = 1 / 16; alpha <= 65536; alpha *= 2) {
    const bits = bitsOf(known.pairs, known, single, { alpha, leaveOut: 1 });
    if (bits < best.bits) best = { alpha, bits };
  }
  const bits =
    bitsOf(seen.pairs, known, single, { alpha: best.alpha, leaveOut: 0 }) -
    Math.log2(single[seen.first] ?? 1 / 256);
  return bits / seen.bytes;
}

/**
 * The result of `gzip -9` on the held-out text, in bits per byte; of a longer text, the first 64
 * MiB are compressed.
 */
export async function gzipBitsPerByte(validation: TextPart): Promise<number> {
  const gzip = createGzip({ level: 9 });
  const compressed = measure(gzip);
  let bytes = 0;
  for await (const piece of bounded(validation.bytes(), MAX_VALIDATION_BYTES)) {
    bytes += piece.length;
    if (!gzip.write(piece)) await new Promise((resolve) => gzip.once("drain", resolve));
  }
  gzip.end();
  return (8 * (await compressed)) / bytes;
}

async function measure(stream: AsyncIterable<Uint8Array>): Promise<number> {
  let total = 0;
  for await (const piece of stream) total += piece.length;
  return total;
}

interface PairCounts {
  /** The count of byte b after byte a, at index 256·a + b. */
  readonly pairs: Float64Array;
  readonly first: number;
  readonly bytes: number;
}

async function countPairs(text: AsyncIterable<Uint8Array>, limit: number): Promise<PairCounts> {
  const pairs = new Float64Array(65536);
  let first = -1;
  let previous = -1;
  let bytes = 0;
  for await (const piece of bounded(text, limit)) {
    for (const byte of piece) {
      if (previous === -1) first = byte;
      else pairs[previous * 256 + byte]! += 1;
      previous = byte;
    }
    bytes += piece.length;
  }
  return { pairs, first, bytes };
}

async function* bounded(
  text: AsyncIterable<Uint8Array>,
  limit: number,
): AsyncGenerator<Uint8Array> {
  let left = limit;
  for await (const piece of text) {
    yield piece.subarray(0, left);
    left -= piece.length;
    if (left <= 0) return;
  }
}

/** The probabilities of single bytes; one is added to each count so that none is impossible. */
function singleProbabilities({ pairs }: PairCounts): Float64Array {
  const counts = new Float64Array(256).fill(1);
  for (const [pair, count] of pairs.entries()) counts[pair % 256]! += count;
  const total = counts.reduce((sum, count) => sum + count, 0);
  return counts.map((count) => count / total);
}

/**
 * The number of bits that the model needs for `pairs`; with `leaveOut` 1, each pair is predicted
 * without itself.
 */
function bitsOf(
  pairs: Float64Array,
  known: PairCounts,
  single: Float64Array,
  { alpha, leaveOut }: { alpha: number; leaveOut: 0 | 1 },
): number {
  let bits = 0;
  for (let a = 0; a < 256; a++) {
    const row = known.pairs.subarray(a * 256, a * 256 + 256);
    const total = row.reduce((sum, count) => sum + count, 0);
    for (let b = 0; b < 256; b++) {
      const count = pairs[a * 256 + b] as number;
      if (count === 0) continue;
      const numerator = (row[b] as number) - leaveOut + alpha * (single[b] as number);
      bits -= count * Math.log2(numerator / (total - leaveOut + alpha));
    }
  }
  return bits;
}

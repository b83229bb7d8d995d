/**
 * The global order of samples: a seeded permutation for each epoch, computed position by position.
 * It has no state and no list, so any worker finds any sample of any step at once, and a run
 * resumes from a step number alone.
 *
 * The permutation is the generalised Feistel cipher of Black and Rogaway, "Ciphers with Arbitrary
 * Finite Domains" (CT-RSA 2002), with cycle walking: [0, n) is laid out in a rectangle of a × b ≥ n
 * cells with a·b - n < a, so that the walk hardly ever takes a second step. Its round function is a
 * 32-bit integer hash, not a cryptographic one: the order must look random to a model, not to an
 * adversary. Sizes and positions are exact up to 2^53.
 */
import { LockstepError } from "../errors.ts";

export interface SampleOrder {
  /** The number of samples in one epoch. */
  readonly samples: number;
  /**
   * The sample at a position of the endless order; `epochOf` says how many epochs have ended before
   * it.
   */
  indexAt(position: number): number;
  /** The samples at positions [start, end). */
  indices(start: number, end: number): number[];
  epochOf(position: number): number;
}

/** A half-open range of positions. */
export interface PositionRange {
  readonly start: number;
  readonly end: number;
}

/**
 * The positions that a step owns: [step·batch, (step + 1)·batch), whatever the number of workers.
 */
export function positionsOfStep(step: number, batch: number): PositionRange {
  const end = (step + 1) * batch;
  if (!Number.isSafeInteger(end) || step < 0 || batch < 1) {
    throw new LockstepError(
      "INVALID_OPTION",
      `Step ${step} with a batch of ${batch} samples has no positions: both must be whole numbers with a product below 2^53.`,
      { fields: { step, batch } },
    );
  }
  return { start: step * batch, end };
}

/** The order of `samples` samples under `seed`: a new permutation in each epoch. */
export function sampleOrder(samples: number, seed: number): SampleOrder {
  if (!Number.isSafeInteger(seed)) {
    throw new LockstepError("INVALID_OPTION", `The seed is ${seed}; it must be a whole number.`, {
      fields: { seed },
    });
  }
  if (!Number.isSafeInteger(samples) || samples < 1) {
    throw new LockstepError("DATA_EMPTY", `There are ${samples} samples to put in order.`);
  }
  const epochOf = (position: number) => Math.floor(position / samples);
  let epoch = 0;
  let permute = permutation(samples, seed, 0);
  const indexAt = (position: number): number => {
    const wanted = epochOf(position);
    if (wanted !== epoch) {
      permute = permutation(samples, seed, wanted);
      epoch = wanted;
    }
    return permute(position - wanted * samples);
  };
  return {
    samples,
    indexAt,
    epochOf,
    indices: (start, end) =>
      Array.from({ length: end - start }, (_, offset) => indexAt(start + offset)),
  };
}

/**
 * The number of rounds of the cipher. Three have a proof for ideal round functions and large
 * domains; with sixteen, every permutation of as few as six samples is equally likely (with eight,
 * a test of that fails).
 */
const ROUNDS = 16;

/** A bijection of [0, n) onto itself, chosen by (seed, stream). */
export function permutation(n: number, seed: number, stream: number): (index: number) => number {
  const a = Math.max(1, Math.ceil(Math.sqrt(n)));
  const b = Math.max(1, Math.ceil(n / a));
  const keys = roundKeys(seed, stream);
  const encipher = (index: number): number => {
    // The quotient is below 2^27, so its distance to the next whole number, which is at least 1/a,
    // survives rounding.
    let right = Math.floor(index / a);
    let left = index - right * a;
    for (let round = 0; round < ROUNDS; round += 2) {
      left += below(hash(right, keys[round] as number), a);
      if (left >= a) left -= a;
      right += below(hash(left, keys[round + 1] as number), b);
      if (right >= b) right -= b;
    }
    return right * a + left;
  };
  return (index) => {
    let image = encipher(index);
    while (image >= n) image = encipher(image);
    return image;
  };
}

/** A number in [0, limit) from 32 random bits, for limits far below 2^32. */
function below(bits: number, limit: number): number {
  return Math.floor((bits * limit) / 4294967296);
}

/**
 * Chris Wellons' `lowbias32` (found by a search for the least bias), keyed by an addition before it
 * and one in the middle.
 */
function hash(value: number, key: number): number {
  let x = (value + key) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul((x ^ (x >>> 15)) + key, 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), seeded by both numbers. */
function roundKeys(seed: number, stream: number): number[] {
  let state = mix64(BigInt.asUintN(64, BigInt(seed))) ^ BigInt.asUintN(64, BigInt(stream));
  return Array.from({ length: ROUNDS }, () => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    return Number(mix64(state) >> 32n);
  });
}

function mix64(value: bigint): bigint {
  let z = value;
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}

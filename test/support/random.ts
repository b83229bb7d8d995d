/** Reproducible random numbers for tests (mulberry32). */
import {
  type DType,
  elementCount,
  isFloat,
  type Tensor,
  tensorFrom,
} from "../../src/tensor/index.ts";

export function randomSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function randomNumbers(
  seed: number,
  count: number,
  [low, high]: readonly [number, number] = [-1, 1],
): number[] {
  const next = randomSource(seed);
  return Array.from({ length: count }, () => low + (high - low) * next());
}

/** A tensor of random numbers. Default: float64, in [-1, 1]. */
export function drawn(
  shape: readonly number[],
  {
    dtype = "float64",
    range = [-1, 1],
    seed = 1,
  }: { dtype?: DType; range?: readonly [number, number]; seed?: number } = {},
): Tensor {
  const numbers = randomNumbers(seed + 31 * shape.length, elementCount(shape), range);
  return tensorFrom(dtype, shape, isFloat(dtype) ? numbers : numbers.map(Math.round));
}

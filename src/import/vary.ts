/**
 * How numbers and tensors vary with the batch size: what `symbolic.ts` can derive from three builds
 * of a model.
 */
import { bytesPerElement, elementCount, sameShape, type Tensor } from "../tensor/index.ts";

/**
 * The sizes that are compared. They are primes: no size of a model is a multiple of them by chance
 * in all three builds.
 */
export const SIZES = [11, 13, 17] as const;

/** One thing at each of the sizes. */
export type Triple<T> = readonly [T, T, T];

/** A difference has no form that a graph for all sizes could express. The message says which. */
export class Inexpressible extends Error {}

export function sameTensor(a: Tensor, b: Tensor): boolean {
  if (a.dtype !== b.dtype || !sameShape(a.shape, b.shape)) return false;
  // Weights often share memory: large ones are then not compared byte by byte.
  const same = a.bytes.buffer === b.bytes.buffer && a.bytes.byteOffset === b.bytes.byteOffset;
  return same || Buffer.compare(a.bytes, b.bytes) === 0;
}

/** The line through the values at the first two sizes, on which the third must lie. */
export function affine(values: Triple<number>, where: string): { factor: number; offset: number } {
  const [a, b, c] = SIZES;
  const factor = (values[1] - values[0]) / (b - a);
  const offset = values[0] - factor * a;
  if (!Number.isInteger(factor) || offset + factor * c !== values[2]) {
    throw new Inexpressible(`${where} is not an affine function of the batch size`);
  }
  return { factor, offset };
}

/** The part of a tensor at index 0 of some dims, if it is the same at every other index of them. */
export function cellOf(tensor: Tensor, dims: readonly boolean[]): Tensor | undefined {
  let { bytes } = tensor;
  const shape = tensor.shape.map((size, dim) => (dims[dim] === true ? 1 : size));
  // From the outermost varying dim inwards, all blocks below it must equal the first.
  for (const [dim, repeated] of dims.entries()) {
    if (!repeated) continue;
    const inner = tensor.shape.slice(dim + 1);
    const block = elementCount(inner) * bytesPerElement(tensor.dtype);
    const size = tensor.shape[dim] as number;
    const outer = bytes.byteLength / (block * size);
    const kept: Uint8Array[] = [];
    for (let o = 0; o < outer; o++) {
      const row = bytes.subarray(o * size * block, (o + 1) * size * block);
      // The bytes equal themselves shifted by one block.
      const moved = row.subarray(block);
      if (Buffer.compare(moved, row.subarray(0, moved.byteLength)) !== 0) return undefined;
      kept.push(row.subarray(0, block));
    }
    bytes = Buffer.concat(kept);
  }
  return { dtype: tensor.dtype, shape, bytes };
}

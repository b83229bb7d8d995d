/**
 * Compares and moves elements of weights without computing with them: transposing a matrix, finding
 * a table in what was gathered from it. This belongs to decoding a file: exporters store weights in
 * other forms than state dicts do.
 */
import {
  bytesPerElement,
  elementCount,
  elementsOf,
  sameShape,
  type Tensor,
  transpose,
} from "../tensor/index.ts";

/** Whether `b` is the transpose of `a`, byte for byte. */
export function areTransposed(a: Tensor, b: Tensor): boolean {
  if (a.shape.length !== 2 || a.dtype !== b.dtype) return false;
  if (!sameShape(a.shape.toReversed(), b.shape)) return false;
  return mayBeTransposed(a, b) && sameBytes(transpose(a), b);
}

export function sameBytes(a: Tensor, b: Tensor): boolean {
  return a.dtype === b.dtype && Buffer.compare(a.bytes, b.bytes) === 0;
}

/**
 * Compares the first row of one with the first column of the other, before the whole is transposed.
 */
function mayBeTransposed(a: Tensor, b: Tensor): boolean {
  const [rows = 0, columns = 0] = a.shape;
  if (rows === 0 || columns === 0) return true;
  const width = bytesPerElement(a.dtype);
  for (let column = 0; column < columns; column++) {
    const first = a.bytes.subarray(column * width, (column + 1) * width);
    const at = column * rows * width;
    if (Buffer.compare(first, b.bytes.subarray(at, at + width)) !== 0) return false;
  }
  return true;
}

/** The first of the slices along the leading dim, if all are equal. */
export function repeated({ dtype, shape, bytes }: Tensor): Tensor | undefined {
  const [count = 1, ...rest] = shape;
  const block = bytes.byteLength / Math.max(1, count);
  const moved = bytes.subarray(block);
  if (Buffer.compare(moved, bytes.subarray(0, moved.byteLength)) !== 0) return undefined;
  return { dtype, shape: [1, ...rest], bytes: bytes.subarray(0, block) };
}

/** A tensor as rows of a table: `table[index]`, with the dim of the columns moved to `dim`. */
export interface Gathered {
  /** (rows, columns): each distinct row once, in order of first occurrence. */
  readonly table: Tensor;
  /** The row at each position, over all dims but `dim`. */
  readonly index: readonly number[];
  readonly dim: number;
}

/** Finds the smallest table that a tensor can have been gathered from. Equal rows count as one. */
export function asGathered(tensor: Tensor): Gathered | undefined {
  let best: Gathered | undefined;
  const size = (found: Gathered) => elementCount(found.table.shape);
  // The last dim is tried first: it is the usual one, and wins if others are as good.
  for (let dim = tensor.shape.length - 1; dim >= 0; dim--) {
    if (tensor.shape[dim] === 1 && tensor.shape.length > 1) continue;
    const found = gatheredAlong(tensor, dim);
    if (best === undefined || size(found) < size(best)) best = found;
  }
  return best;
}

function gatheredAlong(tensor: Tensor, dim: number): Gathered {
  const columns = tensor.shape[dim] as number;
  const inner = elementCount(tensor.shape.slice(dim + 1));
  const outer = elementCount(tensor.shape.slice(0, dim));
  const elements = elementsOf(tensor);
  const known = new Map<string, number>();
  const index: number[] = [];
  const rows: Uint8Array[] = [];
  for (let at = 0; at < outer * inner; at++) {
    const start = Math.floor(at / inner) * columns * inner + (at % inner);
    const row = elements.slice(0, columns);
    for (let column = 0; column < columns; column++) {
      row[column] = elements[start + column * inner] as never;
    }
    const key = Buffer.from(bytesOf(row)).toString("latin1");
    let place = known.get(key);
    if (place === undefined) {
      place = rows.length;
      known.set(key, place);
      rows.push(bytesOf(row));
    }
    index.push(place);
  }
  const shape = [rows.length, columns];
  return { table: { dtype: tensor.dtype, shape, bytes: Buffer.concat(rows) }, index, dim };
}

function bytesOf(elements: ReturnType<typeof elementsOf>): Uint8Array {
  return new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength);
}

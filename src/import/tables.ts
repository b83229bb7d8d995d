/**
 * Finds tables from what an exporter gathered from them: positions, and relative position biases. A
 * table is trained as one tensor, so that all places that use a row change together, as in PyTorch.
 */
import { elementCount, type Tensor, tensorFrom } from "../tensor/index.ts";
import type { GraphEdit } from "./edit.ts";
import { asGathered, type Gathered } from "./same.ts";
import { isUniform, type Read } from "./weights.ts";

export interface Table {
  /** (rows, columns). */
  readonly rows: Tensor;
  readonly index: readonly number[];
  /** The dim of the columns in the gathered tensor. */
  readonly dim: number;
  /**
   * Whether these are all rows in their own order. This is known for relative position biases in
   * windows (Liu et al. 2021, Swin): the row of an offset (dy, dx) in a window of (h, w) is (dy + h
   * - 1) (2 w - 1) + dx + w - 1.
   */
  readonly isWhole: boolean;
}

/**
 * The table that a tensor was gathered from; undefined if no row occurs twice, or if all may be
 * equal by chance.
 */
export function tableOf(tensor: Tensor): Table | undefined {
  if (isUniform(tensor)) return undefined;
  const gathered = asGathered(tensor);
  if (gathered === undefined) return undefined;
  if (elementCount(gathered.table.shape) >= elementCount(tensor.shape)) return undefined;
  return inWindows(gathered, tensor.shape) ?? { ...gathered, rows: gathered.table, isWhole: false };
}

/**
 * Lets `reads` gather the values that they read, of this shape, from the table, which gets a name
 * of its own.
 */
export function gatherFrom(
  edit: GraphEdit,
  { rows, index, dim }: Table,
  to: { readonly name: string; readonly reads: readonly Read[]; readonly shape: readonly number[] },
): void {
  const { name, reads } = to;
  edit.add(name, rows);
  const places = to.shape.filter((_, at) => at !== dim);
  edit.add(`${name}/index`, tensorFrom("int64", places, index));
  let value = edit.prepend("Gather", [name, `${name}/index`], `${name}/gathered`, { axis: 0 });
  if (dim !== places.length) {
    const perm = [...places.keys()];
    perm.splice(dim, 0, places.length);
    value = edit.prepend("Transpose", [value], `${name}/turned`, { perm });
  }
  for (const read of reads) edit.redirect(read, value);
}

/**
 * The rows in the order of their offsets, if each pair of positions in a window has the row of its
 * offset.
 */
function inWindows({ table, index, dim }: Gathered, shape: readonly number[]): Table | undefined {
  const [count = 0, other, ...more] = shape.filter((size, at) => at !== dim && size > 1);
  if (count !== other || more.length > 0) return undefined;
  for (let height = 2; height <= count / 2; height++) {
    const width = count / height;
    if (!Number.isInteger(width) || table.shape[0] !== (2 * height - 1) * (2 * width - 1)) continue;
    const offsets = index.map((_, at) => {
      const [from, to] = [Math.floor(at / count), at % count];
      const dy = Math.floor(from / width) - Math.floor(to / width);
      return (dy + height - 1) * (2 * width - 1) + (from % width) - (to % width) + width - 1;
    });
    const rowOf = new Map(offsets.map((offset, at) => [offset, index[at] as number]));
    const isOne = offsets.every((offset, at) => rowOf.get(offset) === index[at]);
    // There are as many offsets as rows, and each row occurs, so each offset has a row of its own.
    if (isOne) return { rows: reordered(table, rowOf), index: offsets, dim, isWhole: true };
  }
  return undefined;
}

/** Reorders rows: row `to` of the result is row `rowOf.get(to)`. */
function reordered({ dtype, shape, bytes }: Tensor, rowOf: ReadonlyMap<number, number>): Tensor {
  const [count = 0] = shape;
  const width = bytes.byteLength / count;
  const moved = Array.from({ length: count }, (_, to) => {
    const from = rowOf.get(to) as number;
    return bytes.subarray(from * width, (from + 1) * width);
  });
  return { dtype, shape, bytes: Buffer.concat(moved) };
}

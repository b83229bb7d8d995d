/**
 * The layout of the states of a recurrence: sequences are rows (batch, hidden) or columns (hidden,
 * batch). If the result of a product has more columns than rows, ONNX Runtime divides columns among
 * its threads, and short pieces of columns are summed in another order than long ones. So the
 * larger of both sizes becomes the number of rows, and the bits are the same on any number of
 * threads.
 */
import { concat, gemm, reshape, split, swapLast, transpose } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";

export interface Orientation {
  /** The axis along which gates are concatenated. */
  readonly axis: 0 | 1;
  /** Converts from (batch, size) to this layout, and back. */
  turn(x: Value): Value;
  /** (batch, hidden) · weightᵀ + plus, in this layout; `weight` is (size, hidden). */
  product(weight: Value, h: Value, plus: Value | undefined): Value;
  /** (steps · batch, size) as one value for each step. */
  steps(rows: Value, steps: number): Value[];
  /** The values of all steps as (steps · batch, size). */
  rows(values: readonly Value[]): Value;
}

const byRows: Orientation = {
  axis: 1,
  turn: (x) => x,
  product: (weight, h, plus) => gemm(h, weight, plus, { transB: true }),
  steps: (rows, steps) => inSteps(rows, steps),
  rows: (values) => concat(values, 0),
};

const byColumns: Orientation = {
  axis: 0,
  turn: swapLast,
  product: (weight, h, plus) => gemm(weight, h, plus),
  steps: (rows, steps) => {
    const [count = 0, size = 0] = rows.shape;
    const batch = count / steps;
    const turned = transpose(reshape(rows, [steps, batch, size]), [0, 2, 1]);
    return inSteps(reshape(turned, [steps * size, batch]), steps);
  },
  rows: (values) => {
    const [size = 0, batch = 0] = values[0]?.shape ?? [];
    const turned = reshape(concat(values, 0), [values.length, size, batch]);
    return reshape(transpose(turned, [0, 2, 1]), [values.length * batch, size]);
  },
};

export function orientationOf(batch: number, hidden: number): Orientation {
  return batch < hidden ? byColumns : byRows;
}

function inSteps(x: Value, steps: number): Value[] {
  const size = (x.shape[0] as number) / steps;
  return split(x, new Array<number>(steps).fill(size), 0);
}

/**
 * op(a) · op(b) + c of all steps at once, computed so that the larger of the result's sizes is the
 * number of rows; `c` is (columns).
 */
export function tallProduct(
  a: Value,
  b: Value,
  { c, transA = false, transB = false }: { c?: Value; transA?: boolean; transB?: boolean },
): Value {
  const rows = a.shape[transA ? 1 : 0] as number;
  const columns = b.shape[transB ? 0 : 1] as number;
  if (rows >= columns) return gemm(a, b, c, { transA, transB });
  const column = c && reshape(c, [columns, 1]);
  return swapLast(gemm(b, a, column, { transA: !transB, transB: !transA }));
}

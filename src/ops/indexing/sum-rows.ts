/**
 * The gradient of looking up rows: rows that were read from one place are summed there.
 *
 * ScatterND(add) would be the obvious operator, but ONNX Runtime's CPU loses updates of it where numbers repeat
 * and more than one thread runs. Both ways here give the same bits on any number of threads. What was
 * measured, and what else was tried: docs/lab.md.
 */
import {
  add,
  cast,
  equal,
  fromStart,
  full,
  gemm,
  matmul,
  mul,
  range,
  reshape,
  scatterElements,
  swapLast,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import type { DType } from "../../tensor/index.ts";

/** Up to so many places a product with one-hot rows costs no more than scattering, and rounds less. */
const MOST_PLACES_FOR_PRODUCT = 256;
/** So many rows of a product at least, that no thread gets a single one, which is summed in another order. */
const LEAST_ROWS = 64;

/**
 * @param rows (outer, number, inner)
 * @param indices (number): to which place each row belongs; may count from the end
 * @returns (outer, places, inner): at each place the sum of its rows
 */
export function sumRows(rows: Value, indices: Value, places: number): Value {
  const [outer, , inner] = rows.shape as [number, number, number];
  const isSmall = places <= MOST_PLACES_FOR_PRODUCT && places > 1 && inner > 1;
  const isTall = Math.max(places, inner) >= LEAST_ROWS && (outer === 1 || places >= inner);
  return isSmall && isTall ? byProduct(rows, indices, places) : byScatter(rows, indices, places);
}

/**
 * Which row belongs to which place, as a matrix of zeros and ones, times the rows. The result is made with at
 * least as many rows as columns: ONNX Runtime then cuts it into rows for its threads; if it cut columns,
 * the order in which it adds would depend on the number of threads.
 */
function byProduct(rows: Value, indices: Value, places: number): Value {
  const [outer, count, inner] = rows.shape as [number, number, number];
  const numbers = range(rows.builder, indices.dtype, 0, places);
  const ids = fromStart(indices, places);
  if (places >= inner) {
    const isAt = cast(equal(reshape(numbers, [places, 1]), ids), rows.dtype);
    const matrix = outer === 1 ? reshape(rows, [count, inner]) : rows;
    return reshape(matmul(isAt, matrix), [outer, places, inner]);
  }
  const isAt = cast(equal(reshape(ids, [count, 1]), numbers), rows.dtype);
  const sums = gemm(reshape(rows, [count, inner]), isAt, undefined, { transA: true });
  return reshape(swapLast(sums), [1, places, inner]);
}

/**
 * Adds element by element, in order, to a vector of zeros. One dim, because the operator then does half as much
 * for each element as with two.
 */
function byScatter(rows: Value, indices: Value, places: number): Value {
  const b = rows.builder;
  const [outer, count, inner] = rows.shape as [number, number, number];
  const total = outer * places * inner;
  const dtype: DType = total < 2 ** 31 ? indices.dtype : "int64";
  const starts = mul(fromStart(cast(indices, dtype), places), inner);
  let flat = reshape(starts, [count, 1]);
  if (inner > 1) flat = add(flat, range(b, dtype, 0, inner));
  if (outer > 1) {
    const offsets = range(b, dtype, 0, total, places * inner);
    flat = add(reshape(offsets, [outer, 1, 1]), flat);
  }
  const size = outer * count * inner;
  const zeros = full(b, rows.dtype, [total], 0);
  const sums = scatterElements(zeros, reshape(flat, [size]), reshape(rows, [size]), 0, "add");
  return reshape(sums, [outer, places, inner]);
}

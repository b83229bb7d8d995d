/**
 * The gradient of looking up rows: the gradients of rows that were read from one position are
 * summed there.
 *
 * ScatterND(add) would be the obvious operator, but ONNX Runtime's CPU provider loses updates of it
 * if indices repeat and more than one thread runs. Both methods here give the same bits on any
 * number of threads. For what was measured, and what else was tried, see docs/lab.md.
 */
import {
  add,
  cast,
  equal,
  fromStart,
  gemm,
  matmul,
  mul,
  range,
  reshape,
  scatterElements,
  slice,
  swapLast,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import type { DType } from "../../tensor/index.ts";
import { zerosBeside } from "./shared.ts";

/**
 * Up to this many positions, a product with one-hot rows costs no more than scattering, and rounds
 * less.
 */
const MOST_PLACES_FOR_PRODUCT = 256;
/** The number of elements that are scattered at once: their indices then stay in the cache. */
const MOST_ELEMENTS_AT_ONCE = 2 ** 19;
/** The most scatter nodes, so that the graph stays readable. */
const MOST_PIECES = 32;
/**
 * The least number of rows of a product. It ensures that no thread gets a single row, which would
 * be summed in another order.
 */
const LEAST_ROWS = 64;

/**
 * @param rows (outer, number, inner)
 * @param indices (number): the position that each row belongs to; it may count from the end
 * @returns (outer, positions, inner): at each position the sum of its rows
 */
export function sumRows(rows: Value, indices: Value, places: number): Value {
  // Half types have no kernel for the addition, and too few digits for long sums.
  const narrow = rows.dtype === "float16" || rows.dtype === "bfloat16";
  if (narrow) return cast(sumRows(cast(rows, "float32"), indices, places), rows.dtype);
  const [outer, , inner] = rows.shape as [number, number, number];
  const isSmall = places <= MOST_PLACES_FOR_PRODUCT && places > 1 && inner > 1;
  const isTall = Math.max(places, inner) >= LEAST_ROWS && (outer === 1 || places >= inner);
  return isSmall && isTall ? byProduct(rows, indices, places) : byScatter(rows, indices, places);
}

/**
 * Multiplies the rows by a matrix of zeros and ones that says which row belongs to which position.
 * The result is computed with at least as many rows as columns: ONNX Runtime then divides rows
 * among its threads; if it divided columns, the order of the sums would depend on the number of
 * threads.
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
 * Adds element by element, in order, to a vector of zeros. The vector has one dim, because the
 * operator then takes half the time for each element; it runs piece by piece, because the operator
 * copies its indices (8 bytes for each element).
 */
function byScatter(rows: Value, indices: Value, places: number): Value {
  const [outer, count, inner] = rows.shape as [number, number, number];
  const total = outer * places * inner;
  const dtype: DType = total < 2 ** 31 ? indices.dtype : "int64";
  const starts = reshape(mul(fromStart(cast(indices, dtype), places), inner), [count, 1]);
  const pieces = outer === 1 ? Math.ceil((count * inner) / MOST_ELEMENTS_AT_ONCE) : 1;
  const size = Math.ceil(count / Math.min(pieces, MOST_PIECES));
  let sums = zerosBeside(indices, rows.dtype, [total]);
  for (let start = 0; start < count; start += size) {
    const end = Math.min(start + size, count);
    const piece = (x: Value, axis: number) =>
      end - start === count ? x : slice(x, [{ axis, start, end }]);
    const flat = elementIndices(piece(starts, 0), outer, inner, places);
    const length = [outer * (end - start) * inner];
    const updates = reshape(piece(rows, 1), length);
    sums = scatterElements(sums, reshape(flat, length), updates, 0, "add");
  }
  return reshape(sums, [outer, places, inner]);
}

/**
 * The position in the flat result of each element of a row, from the position at which the row
 * starts.
 */
function elementIndices(starts: Value, outer: number, inner: number, places: number): Value {
  const { builder, dtype } = starts;
  const inRow = inner === 1 ? starts : add(starts, range(builder, dtype, 0, inner));
  if (outer === 1) return inRow;
  const offsets = range(builder, dtype, 0, outer * places * inner, places * inner);
  return add(reshape(offsets, [outer, 1, 1]), inRow);
}

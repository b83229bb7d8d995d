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

/** Up to so many places a product with one-hot rows costs no more than scattering, and rounds less. */
const MOST_PLACES_FOR_PRODUCT = 256;
/** So many elements are scattered at once: their indices then stay in the cache. */
const MOST_ELEMENTS_AT_ONCE = 2 ** 19;
/** At most so many scatterings, for a graph should stay readable. */
const MOST_PIECES = 32;
/** So many rows of a product at least, that no thread gets a single one, which is summed in another order. */
const LEAST_ROWS = 64;

/**
 * @param rows (outer, number, inner)
 * @param indices (number): to which place each row belongs; may count from the end
 * @returns (outer, places, inner): at each place the sum of its rows
 */
export function sumRows(rows: Value, indices: Value, places: number): Value {
  // Half types have no kernel that adds, and too few digits for long sums.
  const narrow = rows.dtype === "float16" || rows.dtype === "bfloat16";
  if (narrow) return cast(sumRows(cast(rows, "float32"), indices, places), rows.dtype);
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
 * for each element as with two; piece by piece, because it copies its indices (8 bytes an element).
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

/** Where in the flat result each element of a row belongs, from where its row starts. */
function elementIndices(starts: Value, outer: number, inner: number, places: number): Value {
  const { builder, dtype } = starts;
  const inRow = inner === 1 ? starts : add(starts, range(builder, dtype, 0, inner));
  if (outer === 1) return inRow;
  const offsets = range(builder, dtype, 0, outer * places * inner, places * inner);
  return add(reshape(offsets, [outer, 1, 1]), inRow);
}

/**
 * The gradient of looking up rows: rows that were read from the same place are summed there.
 * ScatterND(add) would be the obvious operator, but ONNX Runtime's CPU loses updates of it where numbers repeat
 * and more than one thread runs. Both ways here give the same bits on any number of threads.
 * Measurements that chose between them: docs/lab.md.
 */
import {
  cast,
  equal,
  expand,
  fromStart,
  full,
  range,
  reshape,
  scatterElements,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";

/** Up to this many places a matrix product with one-hot rows is faster than scattering. */
const MOST_PLACES_FOR_PRODUCT = 256;

/**
 * @param rows (outer, number, inner)
 * @param indices (number): to which place each row belongs
 * @returns (outer, places, inner): at each place the sum of its rows
 */
export function sumRows(rows: Value, indices: Value, places: number): Value {
  return places <= MOST_PLACES_FOR_PRODUCT
    ? byProduct(rows, indices, places)
    : byScatter(rows, indices, places);
}

function byProduct(rows: Value, indices: Value, places: number): Value {
  const b = rows.builder;
  const [outer, count, inner] = rows.shape as [number, number, number];
  const numbers = reshape(range(b, indices.dtype, 0, places), [places, 1]);
  const isAt = cast(equal(numbers, fromStart(indices, places)), rows.dtype);
  if (outer === 1) {
    const sum = b.one("MatMul", [isAt, reshape(rows, [count, inner])]);
    return reshape(sum, [1, places, inner]);
  }
  return b.one("MatMul", [isAt, rows]);
}

function byScatter(rows: Value, indices: Value, places: number): Value {
  const [outer, count, inner] = rows.shape as [number, number, number];
  const zeros = full(rows.builder, rows.dtype, [outer, places, inner], 0);
  const spread = expand(reshape(indices, [1, count, 1]), rows.shape);
  return scatterElements(zeros, spread, rows, 1, "add");
}

/** Elements by number: reading rows, writing rows, orders. Numbers are int32 or int64 and may count from the end. */
import type { Value } from "../graph/index.ts";
import type { DType } from "../tensor/index.ts";
import { add, cast, equal, less, where } from "./elementwise.ts";
import { range, unsqueeze } from "./layout.ts";

/** What scattering does where an element is already: replace it, or combine. */
export type Reduction = "none" | "add" | "mul" | "max" | "min";

/** Rows of `table` along `axis` at `indices`: that dim is replaced by the dims of `indices`. */
export function gather(table: Value, indices: Value, axis = 0): Value {
  return table.builder.one("Gather", [table, indices], { axis });
}

/** For each element of `indices`: the element of `x` at its place, but at that number along `axis`. */
export function gatherElements(x: Value, indices: Value, axis: number): Value {
  return x.builder.one("GatherElements", [x, indices], { axis });
}

/** Parts of `x` at the tuples in the last dim of `indices`; the first `batchDims` dims are shared. */
export function gatherND(x: Value, indices: Value, batchDims = 0): Value {
  return x.builder.one("GatherND", [x, indices], { batch_dims: batchDims });
}

/** A copy of `x` with each element of `updates` at its place, but at the number in `indices` along `axis`. */
export function scatterElements(
  x: Value,
  indices: Value,
  updates: Value,
  axis: number,
  reduction: Reduction = "none",
): Value {
  return x.builder.one("ScatterElements", [x, indices, updates], { axis, reduction });
}

/**
 * A copy of `x` with parts replaced at the tuples in the last dim of `indices`.
 * ONNX Runtime's CPU loses updates of `add` where tuples repeat: use `scatterElements`.
 */
export function scatterND(
  x: Value,
  indices: Value,
  updates: Value,
  reduction: Reduction = "none",
): Value {
  return x.builder.one("ScatterND", [x, indices, updates], { reduction });
}

/** `indices` along a new last dim as vectors of `depth`: 1 at the index, 0 elsewhere. */
export function oneHot(indices: Value, depth: number, dtype: DType): Value {
  const numbers = range(indices.builder, indices.dtype, 0, depth);
  return cast(equal(unsqueeze(indices, [-1]), numbers), dtype);
}

/** Running sums along `axis`. */
export function cumSum(
  x: Value,
  axis: number,
  options: { exclusive?: boolean; reverse?: boolean } = {},
): Value {
  return x.builder.one("CumSum", [x, x.builder.scalar("int64", axis)], {
    exclusive: options.exclusive ?? false,
    reverse: options.reverse ?? false,
  });
}

/** The k largest elements along `axis`, in order, and where they were (int64). */
export function topK(x: Value, k: number, axis = -1): { values: Value; indices: Value } {
  const [values, indices] = x.builder.emit("TopK", [x, x.builder.ints([k])], { axis });
  return { values: values as Value, indices: indices as Value };
}

/** Indices that count from the end become ones that count from the start of a dim of `size`. */
export function fromStart(indices: Value, size: number): Value {
  return where(less(indices, 0), add(indices, size), indices);
}

/**
 * Reading and writing elements by index, and sorting. Indices are int32 or int64 and may count from
 * the end.
 */
import type { Value } from "../graph/index.ts";
import { checkOptions, flag } from "../options.ts";
import { type DType, elementCount, type Shape } from "../tensor/index.ts";
import { add, cast, equal, less, mul, where } from "./elementwise.ts";
import { range, reshape, slice, unsqueeze } from "./layout.ts";

/**
 * What scattering does to an element that is already there: replace it, or combine it with the new
 * one.
 */
export type Reduction = "none" | "add" | "mul" | "max" | "min";

/** Rows of `table` along `axis` at `indices`: the dims of `indices` replace that dim. */
export function gather(table: Value, indices: Value, axis = 0): Value {
  return table.builder.one("Gather", [table, indices], { axis });
}

/**
 * For each element of `indices`, the element of `x` at the same position, but at that index along
 * `axis`.
 */
export function gatherElements(x: Value, indices: Value, axis: number): Value {
  return x.builder.one("GatherElements", [x, indices], { axis });
}

/**
 * Parts of `x` at the index tuples in the last dim of `indices`; the first `batchDims` dims are
 * shared.
 */
export function gatherND(x: Value, indices: Value, batchDims = 0): Value {
  return x.builder.one("GatherND", [x, indices], { batch_dims: batchDims });
}

/**
 * A copy of `x` with each element of `updates` at its own position, but at the index in `indices`
 * along `axis`.
 */
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
 * A copy of `x` with parts replaced at the index tuples in the last dim of `indices`. With a
 * reduction it is composed of ScatterElements, because ONNX Runtime's ScatterND loses updates if
 * tuples repeat and several threads run.
 */
export function scatterND(
  x: Value,
  indices: Value,
  updates: Value,
  reduction: Reduction = "none",
): Value {
  if (reduction === "none") return x.builder.one("ScatterND", [x, indices, updates]);
  const depth = indices.shape.at(-1) as number;
  const total = elementCount(x.shape);
  const inner = elementCount(x.shape.slice(depth));
  const dtype = total < 2 ** 31 ? indices.dtype : "int64";
  const parts = flatIndices(cast(indices, dtype), x.shape.slice(0, depth), 0);
  const starts = reshape(mul(parts, inner), [...parts.shape, 1]);
  const elements = inner === 1 ? starts : add(starts, range(x.builder, dtype, 0, inner));
  const size = [elementCount(updates.shape)];
  const flat = scatterElements(
    reshape(x, [total]),
    reshape(elements, size),
    reshape(updates, size),
    0,
    reduction,
  );
  return reshape(flat, x.shape);
}

/** `indices` along a new last dim as vectors of `depth`: 1 at the index, 0 elsewhere. */
export function oneHot(indices: Value, depth: number, dtype: DType): Value {
  const numbers = range(indices.builder, indices.dtype, 0, depth);
  return cast(equal(unsqueeze(indices, [-1]), numbers), dtype);
}

const CUM_SUM_OPTIONS = { exclusive: flag.optional(), reverse: flag.optional() };

/** Running sums along `axis`. */
export function cumSum(
  x: Value,
  axis: number,
  options: { exclusive?: boolean; reverse?: boolean } = {},
): Value {
  checkOptions("cumSum", options, CUM_SUM_OPTIONS);
  return x.builder.one("CumSum", [x, x.builder.scalar("int64", axis)], {
    exclusive: options.exclusive ?? false,
    reverse: options.reverse ?? false,
  });
}

/** The k largest elements along `axis`, in descending order, and their indices (int64). */
export function topK(x: Value, k: number, axis = -1): { values: Value; indices: Value } {
  const [values, indices] = x.builder.emit("TopK", [x, x.builder.ints([k])], { axis });
  return { values: values as Value, indices: indices as Value };
}

/**
 * Converts indices that count from the end to ones that count from the start of a dim of `size`.
 */
export function fromStart(indices: Value, size: number): Value {
  return where(less(indices, 0), add(indices, size), indices);
}

/**
 * Converts index tuples (as for GatherND) to single indices into the flattened dims `sizes`. The
 * first `batch` of these dims are shared with the tuples, which give the indices of the other dims.
 */
export function flatIndices(tuples: Value, sizes: Shape, batch: number): Value {
  const count = elementCount(tuples.shape.slice(0, -1));
  const depth = tuples.shape.at(-1) as number;
  const list = reshape(tuples, [count, depth]);
  const shared = elementCount(sizes.slice(0, batch));
  let flat: Value | undefined;
  if (shared > 1) {
    const numbers = range(tuples.builder, tuples.dtype, 0, shared);
    flat = reshape(numbers, [shared, 1]);
  }
  for (let place = 0; place < depth; place++) {
    const size = sizes[batch + place] as number;
    const column = slice(list, [{ axis: 1, start: place, end: place + 1 }]);
    const number = reshape(fromStart(column, size), [shared, count / shared]);
    flat = flat === undefined ? number : add(mul(flat, size), number);
  }
  const result = flat ?? reshape(list, [count]);
  return reshape(result, [count]);
}

/** Indices into a dim of which each rank has a part. */
import {
  and,
  cast,
  concat,
  expand,
  fromStart,
  greaterOrEqual,
  less,
  mul,
  range,
  reshape,
  slice,
  sub,
  where,
} from "../../functional/index.ts";
import type { DivisionContext, LocalContext, Value } from "../../graph/index.ts";
import type { Shard } from "../../mesh/index.ts";
import { sectionedDim } from "../divisions.ts";

export interface OwnIndices {
  /** Whether an index is into this rank's part. */
  readonly isOwn: Value;
  /** Counted from the first of this rank's part. */
  readonly at: Value;
}

/** @param places how many each rank has */
export function ownIndices(
  { place, ranks }: LocalContext,
  indices: Value,
  places: number,
): OwnIndices {
  const first = mul(cast(place(), indices.dtype), places);
  const at = sub(fromStart(indices, places * ranks), first);
  return { at, isOwn: and(greaterOrEqual(at, 0), less(at, places)) };
}

/** Indices of others are those of the first position. */
export function orFirst({ isOwn, at }: OwnIndices): Value {
  return where(isOwn, at, 0);
}

/** Indices of others are those behind the last position. */
export function orBehind({ isOwn, at }: OwnIndices, places: number): Value {
  return where(isOwn, at, places);
}

/** One component of index tuples, which lie in the last dim. */
export function componentOf(tuples: Value, component: number): Value {
  const axis = tuples.shape.length - 1;
  return slice(tuples, [{ axis, start: component, end: component + 1 }]);
}

/** How tuples that begin with the number of their own row are divided by rows: see `ownRows`. */
export function rowsOf(context: DivisionContext): Shard | undefined {
  const [rows] = context.input(1).shape as [number];
  const isEach = rows === context.input(0).shape[0] && context.ownRows(1);
  return isEach ? sectionedDim(0, rows, [1], context.ranks) : undefined;
}

/** Tuples of this rank's rows, with the numbers that these have in its part. */
export function withOwnRows(tuples: Value): Value {
  const [rows = 0, ...others] = tuples.shape.slice(0, -1);
  const numbers = range(tuples.builder, tuples.dtype, 0, rows);
  const first = reshape(numbers, [rows, ...others.map(() => 1), 1]);
  return withComponent(tuples, 0, expand(first, [rows, ...others, 1]));
}

/** Index tuples with another component. */
export function withComponent(tuples: Value, component: number, other: Value): Value {
  const depth = tuples.shape.at(-1) as number;
  const components = Array.from({ length: depth }, (_, index) =>
    index === component ? other : componentOf(tuples, index),
  );
  return depth === 1 ? other : concat(components, tuples.shape.length - 1);
}

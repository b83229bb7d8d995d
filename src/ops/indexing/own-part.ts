/** Indices into a dim of which each rank has a part. */
import {
  and,
  cast,
  concat,
  fromStart,
  greaterOrEqual,
  less,
  mul,
  slice,
  sub,
  where,
} from "../../functional/index.ts";
import type { LocalContext, Value } from "../../graph/index.ts";

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

/** Index tuples with another component. */
export function withComponent(tuples: Value, component: number, other: Value): Value {
  const depth = tuples.shape.at(-1) as number;
  const components = Array.from({ length: depth }, (_, index) =>
    index === component ? other : componentOf(tuples, index),
  );
  return depth === 1 ? other : concat(components, tuples.shape.length - 1);
}

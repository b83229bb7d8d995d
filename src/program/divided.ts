/**
 * Which parts of a tensor the ranks hold that divide a model among them. All ranks that have the
 * same part of the model have the same place in it; the ranks that have other samples are its peers.
 */
import {
  groupOf,
  isShard,
  type Mesh,
  modelAxes,
  peersOf,
  placeOnAxis,
  sectionsOf,
} from "../mesh/index.ts";
import type { StepGraph, StepValue } from "../plan/index.ts";
import { elementCount, type Shape, type TensorType } from "../tensor/index.ts";
import { type Ground, isInPlaceOver } from "./levels.ts";

export interface Divided {
  /** The place of this rank in the model, and its place among the ranks that have that place. */
  readonly place: number;
  readonly peer: number;
  /** The ranks of each place, in the order of their samples. */
  readonly ranks: readonly (readonly number[])[];
  /** Whether a rank reads the parts of all places in the memory of its node; else they are sent. */
  readonly isInPlace: boolean;
  /** By `PARAMETER`, `PARAMETER.SLOT` and `STATE`: the tensors of which a place has a part. */
  readonly tensors: ReadonlyMap<string, DividedTensor>;
}

export interface DividedTensor {
  /** The type of the whole. */
  readonly type: TensorType;
  /** In the order in which the tensor is cut. */
  readonly cuts: readonly Cut[];
}

/** A dim is cut among ranks, in sections. */
interface Cut {
  readonly dim: number;
  readonly sections: readonly number[] | undefined;
  readonly ranks: number;
  /** Which of the parts each place in the model has. */
  readonly partOf: readonly number[];
}

/** Elements [start, end) of a whole tensor, which lie at `at` in a part of it. */
export interface PartRange {
  readonly start: number;
  readonly end: number;
  readonly at: number;
}

export function dividedOf(step: StepGraph, { mesh, topology }: Ground, rank: number): Divided {
  const axes = modelAxes(mesh);
  const places = groupOf(mesh, axes, rank);
  const values = [...step.values.values()].filter(({ role }) =>
    ["parameter", "slot", "state"].includes(role),
  );
  const tensors = new Map<string, DividedTensor>();
  for (const value of values) {
    const cuts = cutsOf(value, mesh, axes, places);
    if (cuts.length > 0) tensors.set(value.of, { type: value.type, cuts });
  }
  const ranks = places.map((own) => peersOf(mesh, topology, own).ranks);
  const place = places.indexOf(rank);
  return {
    place,
    peer: (ranks[place] as readonly number[]).indexOf(rank),
    ranks,
    isInPlace: tensors.size === 0 || isInPlaceOver({ mesh, topology }, axes),
    tensors,
  };
}

function cutsOf(
  { placement }: StepValue,
  mesh: Mesh,
  axes: readonly string[],
  places: readonly number[],
): Cut[] {
  return axes.flatMap((axis): Cut[] => {
    const on = placement[axis];
    if (!isShard(on) || on.shard === "flat") return [];
    const partOf = places.map((rank) => placeOnAxis(mesh, axis, rank));
    const ranks = Math.max(...partOf) + 1;
    return [{ dim: on.shard, sections: on.sections, ranks, partOf }];
  });
}

/** The elements of a tensor that a place in the model has, in the order of its part. */
export function partRanges({ type, cuts }: DividedTensor, place: number): PartRange[] {
  const { shape } = type;
  const positions = shape.map((size): Interval[] => [[0, size]]);
  for (const { dim, sections, ranks, partOf } of cuts) {
    const before = positions[dim] as Interval[];
    const size = before.reduce((sum, [start, end]) => sum + end - start, 0);
    let at = 0;
    const own = sectionsOf({ shard: dim, ...(sections && { sections }) }, size).flatMap(
      (length) => {
        const each = length / ranks;
        const start = at + (partOf[place] as number) * each;
        at += length;
        return within(before, start, start + each);
      },
    );
    positions[dim] = own;
  }
  return rangesOf(shape, positions);
}

type Interval = readonly [start: number, end: number];

/** The positions [start, end) of a dim of which only some intervals are there. */
function within(intervals: readonly Interval[], start: number, end: number): Interval[] {
  let at = 0;
  return intervals.flatMap(([from, to]): Interval[] => {
    const [first, last] = [Math.max(start, at) - at, Math.min(end, at + to - from) - at];
    at += to - from;
    return first < last ? [[from + first, from + last]] : [];
  });
}

/** Runs of elements whose positions lie in these intervals of each dim. */
function rangesOf(shape: Shape, positions: readonly (readonly Interval[])[]): PartRange[] {
  const isWhole = (dim: number) => {
    const [first, ...rest] = positions[dim] ?? [];
    return rest.length === 0 && first?.[0] === 0 && first[1] === shape[dim];
  };
  // The dims behind the last one that is cut are whole.
  let last = shape.length - 1;
  while (last > 0 && isWhole(last)) last -= 1;
  let starts = [0];
  for (let dim = 0; dim < last; dim++) {
    const stride = elementCount(shape.slice(dim + 1));
    starts = starts.flatMap((start) =>
      (positions[dim] ?? []).flatMap(([from, to]) =>
        Array.from({ length: to - from }, (_, index) => start + (from + index) * stride),
      ),
    );
  }
  const inner = elementCount(shape.slice(last + 1));
  let at = 0;
  return starts.flatMap((start) =>
    (positions[last] ?? [[0, 1]]).map(([from, to]) => {
      const range = { start: start + from * inner, end: start + to * inner, at };
      at += range.end - range.start;
      return range;
    }),
  );
}

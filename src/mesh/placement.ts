/** The placement of a value on a mesh: what each rank holds of it, axis by axis. */

/**
 * - `partial`: every rank holds one term of a sum, in the shape of the whole;
 * - `partial max`: every rank holds one of the values of which the whole is the largest, element by
 *   element;
 * - `{ shard: 0 }`: every rank holds a part along this dim of the tensor;
 * - `{ shard: "flat" }`: every rank holds a range of the elements of the flattened tensor (as in
 *   Zhao et al., "PyTorch FSDP", 2023).
 */
export type AxisPlacement = "partial" | "partial max" | Shard;

export interface Shard {
  readonly shard: number | "flat";
  /**
   * The sizes of consecutive sections of the dim, each of which is cut evenly: a rank holds its part
   * of every section, in order. So what is made of queries, keys and values side by side is cut by
   * heads. Default: one section, the whole dim.
   */
  readonly sections?: readonly number[];
}

/**
 * The placement on each axis. On an axis that is not named, the value is replicated: every rank
 * holds all of it.
 */
export type Placement = Readonly<Record<string, AxisPlacement>>;

export const REPLICATED: Placement = {};

/** The axes on which a value is sharded. */
export function shardAxes(placement: Placement): string[] {
  return Object.keys(placement).filter((axis) => isShard(placement[axis]));
}

export function isShard(on: AxisPlacement | undefined): on is Shard {
  return typeof on === "object";
}

/** Whether ranks of some axis hold ranges of the flattened value. */
export function isFlatShard(placement: Placement): boolean {
  return Object.values(placement).some((on) => isShard(on) && on.shard === "flat");
}

/** Whether two placements on an axis are the same. Undefined: replicated. */
export function isSamePlacement(
  one: AxisPlacement | undefined,
  other: AxisPlacement | undefined,
): boolean {
  if (!isShard(one) || !isShard(other)) return one === other;
  return one.shard === other.shard && String(one.sections) === String(other.sections);
}

/** The sections of a dim that is sharded: the whole dim, if none are given. */
export function sectionsOf({ sections }: Shard, size: number): readonly number[] {
  return sections ?? [size];
}

/** The shape of what a rank of an axis of `ranks` ranks holds. */
export function shapeOnAxis(
  shape: readonly number[],
  on: AxisPlacement | undefined,
  ranks: number,
): readonly number[] {
  if (!isShard(on) || on.shard === "flat") return shape;
  return shape.with(on.shard, (shape[on.shard] as number) / ranks);
}

/** Formats a placement as `replicated` or `partial(micro-batch) shard(data, flat)`. */
export function formatPlacement(placement: Placement): string {
  const parts = Object.entries(placement).map(([axis, on]) => formatOnAxis(on, axis));
  return parts.length === 0 ? "replicated" : parts.join(" ");
}

/** Formats a placement on an axis as `shard(tensor, 1)`, with sections as `shard(tensor, 1: 8+2+2)`. */
export function formatOnAxis(on: AxisPlacement, axis: string): string {
  if (!isShard(on)) return `${on}(${axis})`;
  const sections = on.sections === undefined ? "" : `: ${on.sections.join("+")}`;
  return `shard(${axis}, ${on.shard}${sections})`;
}

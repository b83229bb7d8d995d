/** How the ranks of a mesh hold a value: what each axis means for it. */

/**
 * - `partial`: every rank holds a part of a sum, in the shape of the whole;
 * - `{ shard: 0 }`: every rank holds a part along a dim of the tensor;
 * - `{ shard: "flat" }`: along the flattened tensor (a range of its elements, as in Zhao et al., "PyTorch FSDP", 2023).
 */
export type AxisPlacement = "partial" | { readonly shard: number | "flat" };

/** By axis. On an axis that is not named, the value is replicated: every rank holds all of it. */
export type Placement = Readonly<Record<string, AxisPlacement>>;

export const REPLICATED: Placement = {};

/** The axes on which a value is sharded. */
export function shardAxes(placement: Placement): string[] {
  return Object.keys(placement).filter((axis) => placement[axis] !== "partial");
}

/** `replicated`, or `partial(micro-batch) shard(data, flat)`. */
export function formatPlacement(placement: Placement): string {
  const parts = Object.entries(placement).map(([axis, on]) =>
    on === "partial" ? `partial(${axis})` : `shard(${axis}, ${on.shard})`,
  );
  return parts.length === 0 ? "replicated" : parts.join(" ");
}

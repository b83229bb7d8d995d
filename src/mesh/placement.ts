/** The placement of a value on a mesh: what each rank holds of it, axis by axis. */

/**
 * - `partial`: every rank holds one term of a sum, in the shape of the whole;
 * - `{ shard: 0 }`: every rank holds a part along this dim of the tensor;
 * - `{ shard: "flat" }`: every rank holds a range of the elements of the flattened tensor (as in
 *   Zhao et al., "PyTorch FSDP", 2023).
 */
export type AxisPlacement = "partial" | { readonly shard: number | "flat" };

/**
 * The placement on each axis. On an axis that is not named, the value is replicated: every rank
 * holds all of it.
 */
export type Placement = Readonly<Record<string, AxisPlacement>>;

export const REPLICATED: Placement = {};

/** The axes on which a value is sharded. */
export function shardAxes(placement: Placement): string[] {
  return Object.keys(placement).filter((axis) => placement[axis] !== "partial");
}

/** Formats a placement as `replicated` or `partial(micro-batch) shard(data, flat)`. */
export function formatPlacement(placement: Placement): string {
  const parts = Object.entries(placement).map(([axis, on]) =>
    on === "partial" ? `partial(${axis})` : `shard(${axis}, ${on.shard})`,
  );
  return parts.length === 0 ? "replicated" : parts.join(" ");
}

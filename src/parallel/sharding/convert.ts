/**
 * Conversions: what ranks of an axis do so that they hold a value in another way. There is one for
 * each pair of placements.
 */
import type { Value } from "../../graph/index.ts";
import { type AxisPlacement, isSamePlacement, isShard } from "../../mesh/index.ts";
import { type DividedOver, shardAttributes } from "../../ops/index.ts";

/** The steps of a conversion. Those that start with `all` or `reduce` send something. */
export type Exchange = "all-reduce" | "reduce-scatter" | "all-gather" | "all-to-all";
export type Step = Exchange | "own part" | "on first" | "among zeros";

/** The steps from one placement to another; none if nothing has to be done. */
export function stepsBetween(
  from: AxisPlacement | undefined,
  to: AxisPlacement | undefined,
): readonly Step[] {
  if (isSamePlacement(from, to)) return [];
  // What all ranks hold alike is the largest of what they hold.
  if (from === undefined && to === "partial max") return [];
  if (from === undefined) return isShard(to) ? ["own part"] : ["on first"];
  if (isShard(from)) {
    if (to === undefined || to === "partial max") return ["all-gather"];
    if (to === "partial") return ["among zeros"];
    return from.shard === to.shard ? ["all-gather", "own part"] : ["all-to-all"];
  }
  if (from === "partial" && isShard(to)) return ["reduce-scatter"];
  return ["all-reduce", ...stepsBetween(undefined, to)];
}

/** The lengths of what a rank sends, in the length of a value, for many ranks. */
export function effortOf(steps: readonly Step[]): number {
  const each = {
    "all-reduce": 2,
    "reduce-scatter": 1,
    "all-gather": 1,
    "all-to-all": 0.5,
  } as const;
  return steps.reduce((sum, step) => sum + (step in each ? each[step as Exchange] : 0.01), 0);
}

/** @param value what this rank holds: in local shape */
export function convert(
  value: Value,
  from: AxisPlacement | undefined,
  to: AxisPlacement | undefined,
  { axis, ranks }: Pick<DividedOver, "axis" | "ranks">,
): Value {
  const over = { axis, ranks };
  const { builder } = value;
  return stepsBetween(from, to).reduce((held, step): Value => {
    const emit = (op: string, attributes = {}) =>
      builder.one(`lockstep::${op}`, [held], { ...over, ...attributes });
    switch (step) {
      case "all-reduce":
        return emit("AllReduce", { kind: from === "partial max" ? "max" : "sum" });
      case "reduce-scatter":
        return emit("ReduceScatter", shardAttributes(to));
      case "all-gather":
        return emit("AllGather", shardAttributes(from));
      case "all-to-all":
        return emit("AllToAll", { ...shardAttributes(from), ...shardAttributes(to, "to") });
      case "own part":
        return emit("OwnPart", shardAttributes(to));
      case "on first":
        return emit("OnFirst");
      case "among zeros":
        return emit("AmongZeros", shardAttributes(from));
    }
  }, value);
}

/** How softmax is divided: along other dims, or along its own with two small exchanges. */
import { div, exp, log, reduceSum, sub } from "../../functional/index.ts";
import type { Division, DivisionContext, LocalContext, Value } from "../../graph/index.ts";
import { byteLength } from "../../tensor/index.ts";
import { along, exceptAlong } from "../divisions.ts";
import { axisOf } from "./shared.ts";

/** @param inLogarithms whether the result is the logarithm */
export function softmaxDivisions(context: DivisionContext, inLogarithms: boolean): Division[] {
  const type = context.input(0);
  const axis = axisOf(context.attributes, type.shape);
  const own = along(context, {
    inputs: [axis],
    outputs: [axis],
    local: (rank) => [cutSoftmax(rank, axis, inLogarithms)],
  });
  // The largest element and the sum of each row.
  const exchanged = 2 * byteLength({ ...type, shape: type.shape.with(axis, 1) });
  return [...exceptAlong(context, [axis]), ...own.map((division) => ({ ...division, exchanged }))];
}

/** After Shoeybi et al., "Megatron-LM", 2019: logits are never gathered. */
export function cutSoftmax(
  { input, builder, allReduce }: LocalContext,
  axis: number,
  inLogarithms: boolean,
): Value {
  const x = input(0);
  const largest = builder.one("ReduceMax", [x, builder.ints([axis])]);
  const shifted = sub(x, allReduce(largest, "max"));
  const powers = exp(shifted);
  const total = allReduce(reduceSum(powers, { axes: [axis] }), "sum");
  return inLogarithms ? sub(shifted, log(total)) : div(powers, total);
}

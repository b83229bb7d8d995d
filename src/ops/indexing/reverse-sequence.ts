import type { OperatorDefinition } from "../../graph/index.ts";
import { along, linearDivisions } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/**
 * Reverses the first elements along `time_axis`; input 1 holds their number for each index of
 * `batch_axis`.
 */
export const reverseSequence: OperatorDefinition = {
  name: "ReverseSequence",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {
    batch_axis: { kind: "int", default: 1 },
    time_axis: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const type = context.input(0);
    const { dtype, shape } = context.input(1);
    const batchAxis = context.attributes.number("batch_axis");
    const timeAxis = context.attributes.number("time_axis");
    const isFirstTwo = Math.min(batchAxis, timeAxis) === 0 && Math.max(batchAxis, timeAxis) === 1;
    if (!isFirstTwo) context.fail("its axes are 0 and 1");
    const batch = type.shape[batchAxis];
    if (dtype !== "int64" || shape.length !== 1 || shape[0] !== batch) {
      context.fail(`takes ${batch} lengths (int64)`);
    }
    return [type];
  },
  gradient: (context) => [
    context.builder.one("ReverseSequence", [context.gradient(0), context.input(1)], {
      batch_axis: context.attributes.number("batch_axis"),
      time_axis: context.attributes.number("time_axis"),
    }),
    undefined,
  ],
  flops: noFlops,
  inPlace: false,
  batch: { mixes: ({ attributes }) => [attributes.number("time_axis")] },
  divisions: (context) => {
    const batchAxis = context.attributes.number("batch_axis");
    const timeAxis = context.attributes.number("time_axis");
    const cuts = context.input(0).shape.flatMap((_, dim) => {
      if (dim === timeAxis) return [];
      return along(context, { inputs: [dim, dim === batchAxis ? 0 : undefined], outputs: [dim] });
    });
    return [...cuts, ...linearDivisions(context, "first")];
  },
};

import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";

/** The first elements along `time_axis` in reverse, as many for each of `batch_axis` as input 1 says. */
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
    const axes = [
      context.attributes.number("batch_axis"),
      context.attributes.number("time_axis"),
    ].sort();
    if (axes[0] !== 0 || axes[1] !== 1) context.fail("its axes are 0 and 1");
    const batch = type.shape[context.attributes.number("batch_axis")];
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
};

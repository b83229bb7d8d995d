import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";
import { dimOf, gathered, groupSize, meshAxis, scattered, sizeOf } from "./shared.ts";

/** Rank r gets part r, along `split`, of every rank's tensor, one after the other along `concat`. */
export const allToAll: OperatorDefinition = {
  name: "lockstep::AllToAll",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {
    axis: meshAxis,
    size: groupSize,
    split: { kind: "int", default: 0 },
    concat: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const type = context.input(0);
    const size = sizeOf(context);
    const part = scattered(context, type, dimOf(context, "split", type), size);
    return [gathered(part, dimOf(context, "concat", type), size)];
  },
  gradient: ({ builder, attributes, gradient }) => [
    builder.one("lockstep::AllToAll", [gradient(0)], {
      axis: attributes.string("axis"),
      size: attributes.number("size"),
      split: attributes.number("concat"),
      concat: attributes.number("split"),
    }),
  ],
  flops: noFlops,
  inPlace: false,
};

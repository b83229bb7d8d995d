import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";
import { dimOf, gathered, groupSize, meshAxis, sizeOf } from "./shared.ts";

/** Every rank gets the tensors of all ranks, one after the other along `dim`. */
export const allGather: OperatorDefinition = {
  name: "lockstep::AllGather",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { axis: meshAxis, size: groupSize, dim: { kind: "int", default: 0 } },
  infer: (context) => {
    const type = context.input(0);
    return [gathered(type, dimOf(context, "dim", type), sizeOf(context))];
  },
  gradient: ({ builder, attributes, gradient }) => [
    builder.one("lockstep::ReduceScatter", [gradient(0)], {
      axis: attributes.string("axis"),
      size: attributes.number("size"),
      dim: attributes.number("dim"),
    }),
  ],
  flops: noFlops,
  inPlace: false,
};

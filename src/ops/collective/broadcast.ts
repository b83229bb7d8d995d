import { concat, mul, reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";
import { groupSize, meshAxis, sizeOf } from "./shared.ts";

/** Every rank gets the tensor of rank `root` of its group. */
export const broadcast: OperatorDefinition = {
  name: "lockstep::Broadcast",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { axis: meshAxis, size: groupSize, root: { kind: "int", default: 0 } },
  infer: (context) => {
    const root = context.attributes.number("root");
    if (root < 0 || root >= sizeOf(context)) context.fail(`no rank ${root} in the group`);
    return [context.input(0)];
  },
  // The root's gradient is the sum of all; that of the others is zero. No rank knows its number here: a scatter of
  // the sum, with zeros for all but the root, does.
  gradient: ({ builder, attributes, gradient }) => {
    const dy = gradient(0);
    const size = attributes.number("size");
    const root = attributes.number("root");
    const row = reshape(dy, [1, ...dy.shape]);
    const zero = mul(row, 0);
    const rows = Array.from({ length: size }, (_, rank) => (rank === root ? row : zero));
    const own = builder.one("lockstep::ReduceScatter", [concat(rows, 0)], {
      axis: attributes.string("axis"),
      size,
      dim: 0,
    });
    return [reshape(own, dy.shape)];
  },
  flops: noFlops,
  inPlace: false,
};

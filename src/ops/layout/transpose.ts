import { transpose as permute } from "../../functional/index.ts";
import type { InferContext, OperatorDefinition } from "../../graph/index.ts";
import { along } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** Dim i of the result is dim `perm[i]` of the input; without `perm`, dims are reversed. */
export const transpose: OperatorDefinition = {
  name: "Transpose",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { perm: { kind: "ints", default: null } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const perm = permutation(context.attributes, shape.length);
    const sorted = [...perm].sort((a, b) => a - b);
    if (perm.length !== shape.length || sorted.some((dim, i) => dim !== i)) {
      context.fail(`perm [${perm.join(", ")}] is not a permutation of ${shape.length} dims`);
    }
    return [{ dtype, shape: perm.map((dim) => shape[dim] as number) }];
  },
  gradient: (context) => {
    const perm = permutation(context.attributes, context.input(0).shape.length);
    const inverse = perm.map((_, dim) => perm.indexOf(dim));
    return [permute(context.gradient(0), inverse)];
  },
  flops: noFlops,
  moves: true,
  inPlace: false,
  batch: { linear: "first" },
  divisions: (context) => {
    const perm = permutation(context.attributes, context.input(0).shape.length);
    return perm.flatMap((from, to) => along(context, { inputs: [from], outputs: [to] }));
  },
};

function permutation(attributes: InferContext["attributes"], rank: number): readonly number[] {
  if (attributes.has("perm")) return attributes.numbers("perm");
  return Array.from({ length: rank }, (_, dim) => rank - 1 - dim);
}

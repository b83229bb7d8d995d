import type { OperatorDefinition } from "../../graph/index.ts";
import { DTYPES, type DType } from "../../tensor/index.ts";
import { noFlops } from "../shared.ts";
import { meshAxis } from "./shared.ts";

/** Takes a tensor from rank `from` of the group. It waits for its inputs, which are signs of what came before. */
export const recv: OperatorDefinition = {
  name: "lockstep::Recv",
  inputs: [0, Infinity],
  outputs: [1, 1],
  attributes: {
    axis: meshAxis,
    from: { kind: "int" },
    tag: { kind: "int", default: 0 },
    dtype: { kind: "string" },
    shape: { kind: "ints" },
  },
  infer: ({ attributes, failType }) => {
    const dtype = attributes.string("dtype");
    if (!Object.hasOwn(DTYPES, dtype)) failType(`no element type "${dtype}"`);
    return [{ dtype: dtype as DType, shape: attributes.numbers("shape") }];
  },
  gradient: { missing: "A pipeline writes the way back of its stages itself." },
  flops: noFlops,
  inPlace: false,
};

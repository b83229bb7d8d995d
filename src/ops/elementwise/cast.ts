import { cast as convert } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { dtypeFromOnnx, isFloat } from "../../tensor/index.ts";
import { byElement } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** The input converted to another element type: `to` is the number of that type in ONNX. */
export const cast: OperatorDefinition = {
  name: "Cast",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { to: { kind: "int" }, saturate: { kind: "int", default: 1 } },
  infer: (context) => {
    const number = context.attributes.number("to");
    const dtype = dtypeFromOnnx(number);
    if (dtype === undefined) return context.failType(`element type ${number} is not supported`);
    return [{ dtype, shape: context.input(0).shape }];
  },
  gradient: (context) => {
    const { dtype } = context.input(0);
    return [isFloat(dtype) ? convert(context.gradient(0), dtype) : undefined];
  },
  flops: noFlops,
  moves: true,
  inPlace: true,
  within: "elements",
  batch: { linear: "together" },
  divisions: byElement,
};

import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { noGradient } from "../shared.ts";
import {
  checkReduction,
  dimOf,
  groupSize,
  meshAxis,
  reduction,
  scattered,
  sizeOf,
} from "./shared.ts";

/** Rank r gets part r, along `dim`, of the reduction of all ranks' tensors. */
export const reduceScatter: OperatorDefinition = {
  name: "lockstep::ReduceScatter",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { axis: meshAxis, size: groupSize, dim: { kind: "int", default: 0 }, reduction },
  infer: (context) => {
    checkReduction(context);
    const type = context.input(0);
    return [scattered(context, type, dimOf(context, "dim", type), sizeOf(context))];
  },
  gradient: (context) => {
    const { builder, attributes } = context;
    const name = attributes.string("reduction");
    if (name !== "sum") return noGradient(context, `for the reduction "${name}"`, "Reduce by sum.");
    return [
      builder.one("lockstep::AllGather", [context.gradient(0)], {
        axis: attributes.string("axis"),
        size: attributes.number("size"),
        dim: attributes.number("dim"),
      }),
    ];
  },
  flops: (context) => elementCount(context.input(0).shape),
  inPlace: false,
};

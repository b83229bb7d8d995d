import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { noGradient } from "../shared.ts";
import { carriesGradient, checkReduction, meshAxis, reduction } from "./shared.ts";

/** Every rank gets the reduction of all ranks' tensors. Several tensors travel as one message: a bucket. */
export const allReduce: OperatorDefinition = {
  name: "lockstep::AllReduce",
  inputs: [1, Infinity],
  outputs: [1, Infinity],
  attributes: { axis: meshAxis, reduction },
  infer: (context) => {
    checkReduction(context);
    if (context.outputCount !== context.inputs.length) {
      context.fail(`${context.inputs.length} inputs make as many outputs`);
    }
    return context.inputs.map((_, index) => context.input(index));
  },
  gradient: (context) => {
    const name = context.attributes.string("reduction");
    if (name !== "sum") return noGradient(context, `for the reduction "${name}"`, "Reduce by sum.");
    const { builder, attributes } = context;
    const reached = context.gradients.flatMap((dy, index) =>
      dy !== undefined && carriesGradient(dy) ? [index] : [],
    );
    const sums = builder.emit(
      "lockstep::AllReduce",
      reached.map((index) => context.gradient(index)),
      { axis: attributes.string("axis") },
      { outputs: reached.length },
    );
    return context.inputs.map((_, index) => sums[reached.indexOf(index)]);
  },
  flops: (context) => context.outputs.reduce((sum, type) => sum + elementCount(type.shape), 0),
  inPlace: true,
};

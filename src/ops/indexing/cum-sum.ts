import { cumSum as runningSum } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount, normalizeDim } from "../../tensor/index.ts";
import { exceptAlong, linearDivisions } from "../divisions.ts";

/**
 * Running sums along the dim in input 1. `exclusive`: each sum excludes the element itself;
 * `reverse`: sums start at the end.
 */
export const cumSum: OperatorDefinition = {
  name: "CumSum",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {
    exclusive: { kind: "int", default: 0 },
    reverse: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const type = context.input(0);
    const [axis] = context.constantNumbers(1) as [number];
    if (normalizeDim(axis, type.shape.length) === undefined) {
      context.fail(`axis ${axis} is out of range`);
    }
    return [type];
  },
  gradient: (context) => {
    const [axis] = context.constantNumbers(1) as [number];
    const options = {
      exclusive: context.attributes.number("exclusive") === 1,
      reverse: context.attributes.number("reverse") === 0,
    };
    return [runningSum(context.gradient(0), axis, options), undefined];
  },
  flops: (context) => elementCount(context.input(0).shape),
  inPlace: false,
  batch: {
    mixes: ({ input, constantNumbers }) => [
      normalizeDim(constantNumbers(1)[0] ?? 0, input(0).shape.length),
    ],
  },
  divisions: (context) => {
    const [axis] = context.constantNumbers(1) as [number];
    const dim = normalizeDim(axis, context.input(0).shape.length) as number;
    return [...exceptAlong(context, [dim]), ...linearDivisions(context, "first")];
  },
};

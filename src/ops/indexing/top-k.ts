import { cast, expand, scatterElements, slice, sub } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount, normalizeDim } from "../../tensor/index.ts";
import { exceptAlong } from "../divisions.ts";
import { axisOf, dimOf } from "./shared.ts";

/**
 * The k (input 1) largest elements (smallest, if `largest` is 0) along `axis`, and their indices
 * (int64). Of equal elements the first are chosen, and the gradient goes to the chosen ones.
 */
export const topK: OperatorDefinition = {
  name: "TopK",
  inputs: [2, 2],
  outputs: [2, 2],
  attributes: {
    axis: { kind: "int", default: -1 },
    largest: { kind: "int", default: 1 },
    sorted: { kind: "int", default: 1 },
  },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const axis = axisOf(context, shape);
    const [k] = context.constantNumbers(1) as [number];
    if (k < 0 || k > (shape[axis] as number)) context.fail(`there are no ${k} elements to choose`);
    return [
      { dtype, shape: shape.with(axis, k) },
      { dtype: "int64", shape: shape.with(axis, k) },
    ];
  },
  gradient: (context) => {
    const x = context.input(0);
    const axis = dimOf(context, x.shape);
    const indices = context.output(1);
    // Made along the axis, so that whoever has a part of another dim makes its part.
    const first = slice(indices, [{ axis, start: 0, end: 1 }]);
    const zeros = expand(cast(sub(first, first), x.dtype), x.shape);
    return [scatterElements(zeros, indices, context.gradient(0), axis), undefined];
  },
  flops: (context) => elementCount(context.input(0).shape),
  inPlace: false,
  batch: {
    mixes: ({ attributes, input }) => [
      normalizeDim(attributes.number("axis"), input(0).shape.length),
    ],
  },
  divisions: (context) => exceptAlong(context, [axisOf(context, context.input(0).shape)]),
};

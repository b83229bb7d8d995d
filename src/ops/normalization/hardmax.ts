import type { OperatorDefinition } from "../../graph/index.ts";
import { exceptAlong } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { AXIS, axisOf, checkedFloat } from "./shared.ts";

/** 1 at the first maximum along `axis`, 0 elsewhere. */
export const hardmax: OperatorDefinition = {
  name: "Hardmax",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: AXIS,
  infer: (context) => [checkedFloat(context)],
  gradient: { zero: "it is piecewise constant" },
  flops: flopsPerElement(),
  inPlace: false,
  divisions: (context) =>
    exceptAlong(context, [axisOf(context.attributes, context.input(0).shape)]),
  batch: { mixes: ({ attributes, input }) => [axisOf(attributes, input(0).shape)] },
};

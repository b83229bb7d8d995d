import { where as choose, sumTo } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { byElement, divisionOf } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { broadcastOf } from "./shared.ts";

/** y = a where the condition (bool) is true, and b elsewhere. */
export const where: OperatorDefinition = {
  name: "Where",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    if (context.input(0).dtype !== "bool") context.failType("the condition must be bool");
    const { dtype } = context.input(1);
    if (context.input(2).dtype !== dtype) context.failType("both values must have one type");
    return [{ dtype, shape: broadcastOf(context, 0, 1, 2) }];
  },
  gradient: (context) => {
    const [condition, a, b] = [context.input(0), context.input(1), context.input(2)];
    const dy = context.gradient(0);
    return [
      undefined,
      context.needs(1) ? sumTo(choose(condition, dy, 0), a.shape) : undefined,
      context.needs(2) ? sumTo(choose(condition, 0, dy), b.shape) : undefined,
    ];
  },
  flops: flopsPerElement(),
  form: { kind: "choice", condition: 0, yes: 1, no: 2 },
  inPlace: false,
  within: "elements",
  divisions: (context) => [
    ...byElement(context),
    // The terms of the chosen values, where all ranks choose alike.
    divisionOf([undefined, "partial", "partial"], ["partial"]),
  ],
};

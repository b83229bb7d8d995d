import type { OperatorDefinition } from "../../graph/index.ts";
import { byElement } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";

/** Logic on bools. */
export const not: OperatorDefinition = {
  name: "Not",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    if (context.input(0).dtype !== "bool") context.failType("takes bools");
    return [context.input(0)];
  },
  gradient: { zero: "Not gives a bool" },
  flops: flopsPerElement(),
  form: { kind: "negation" },
  inPlace: true,
  within: "elements",
  divisions: byElement,
};

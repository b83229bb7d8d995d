import type { OperatorDefinition } from "../../graph/index.ts";
import { byElement } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { numberType } from "./shared.ts";

/** Whether x is not a number, as bool. */
export const isNaN: OperatorDefinition = {
  name: "IsNaN",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => [{ dtype: "bool", shape: numberType(context, false).shape }],
  gradient: { zero: "IsNaN gives a bool" },
  flops: flopsPerElement(),
  inPlace: false,
  divisions: byElement,
};

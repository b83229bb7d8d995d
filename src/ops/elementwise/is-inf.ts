import type { OperatorDefinition } from "../../graph/index.ts";
import { byElement } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { numberType } from "./shared.ts";

/** Whether x is infinite, as bool; the attributes select the signs. */
export const isInf: OperatorDefinition = {
  name: "IsInf",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {
    detect_negative: { kind: "int", default: 1 },
    detect_positive: { kind: "int", default: 1 },
  },
  infer: (context) => [{ dtype: "bool", shape: numberType(context, false).shape }],
  gradient: { zero: "IsInf gives a bool" },
  flops: flopsPerElement(),
  inPlace: false,
  divisions: byElement,
};

import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";
import { AXIS } from "./shared.ts";

/** The place of a rank on an axis: an int64 scalar, from 0. */
export const axisPlace: OperatorDefinition = {
  name: "lockstep::AxisPlace",
  inputs: [0, 0],
  outputs: [1, 1],
  attributes: AXIS,
  infer: () => [{ dtype: "int64", shape: [] }],
  gradient: { zero: "a place is an integer" },
  flops: noFlops,
  inPlace: false,
  divisions: { never: "it is one number" },
};

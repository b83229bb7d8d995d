import { cast, greater, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x for x > α, else 0. */
export const thresholdedRelu = unary(
  "ThresholdedRelu",
  ({ x, dy, attributes }) => mul(dy, cast(greater(x, attributes.number("alpha")), dy.dtype)),
  { attributes: { alpha: { kind: "float", default: 1 } } },
);

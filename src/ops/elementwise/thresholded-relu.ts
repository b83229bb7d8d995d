import { greater, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x for x > α, else 0. */
export const thresholdedRelu = unary(
  "ThresholdedRelu",
  ({ x, dy, attributes }) => where(greater(x, attributes.number("alpha")), dy, 0),
  { attributes: { alpha: { kind: "float", default: 1 } } },
);

import { and, cast, greater, less, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = α x + β, clamped to [0, 1]; the derivative where it is clamped is 0. */
export const hardSigmoid = unary(
  "HardSigmoid",
  ({ y, dy, attributes }) => {
    const free = cast(and(greater(y, 0), less(y, 1)), dy.dtype);
    return mul(mul(dy, attributes.number("alpha")), free);
  },
  {
    attributes: {
      alpha: { kind: "float", default: 0.2 },
      beta: { kind: "float", default: 0.5 },
    },
    flops: 3,
  },
);

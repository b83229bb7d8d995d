import { and, greater, less, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = α x + β, held between 0 and 1; the derivative where it is held is 0. */
export const hardSigmoid = unary(
  "HardSigmoid",
  ({ y, dy, attributes }) =>
    where(and(greater(y, 0), less(y, 1)), mul(dy, attributes.number("alpha")), 0),
  {
    attributes: {
      alpha: { kind: "float", default: 0.2 },
      beta: { kind: "float", default: 0.5 },
    },
    flops: 3,
  },
);

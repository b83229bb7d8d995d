import { abs, cast, greater, mul } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x - bias for x > λ, x + bias for x < -λ, else 0. */
export const shrink = unary(
  "Shrink",
  ({ x, dy, attributes }) => mul(dy, cast(greater(abs(x), attributes.number("lambd")), dy.dtype)),
  {
    attributes: {
      bias: { kind: "float", default: 0 },
      lambd: { kind: "float", default: 0.5 },
    },
    integers: true,
  },
);

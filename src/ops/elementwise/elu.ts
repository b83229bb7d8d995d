import { add, greater, mul, where } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = x for x > 0, else α (eˣ - 1), whose derivative is y + α. */
export const elu = unary(
  "Elu",
  ({ x, y, dy, attributes }) =>
    where(greater(x, 0), dy, mul(dy, add(y, attributes.number("alpha")))),
  { attributes: { alpha: { kind: "float", default: 1 } }, flops: 10 },
);

import { mul, neg, div as over } from "../../functional/index.ts";
import { binary } from "./shared.ts";

/** c = a / b; integers are divided towards zero. da = dc / b, db = -da · c. */
export const div = binary(
  "Div",
  ({ b, y, dy, toA, toB }) => {
    const da = over(dy, b);
    return [() => toA(da), () => neg(toB(mul(da, y)))];
  },
  { batch: { linear: "first", divides: 1 } },
);

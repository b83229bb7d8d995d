import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";

/**
 * Numbers from input 0 up to input 1, exclusive, in steps of input 2. All are constants, because
 * shapes are static.
 */
export const range: OperatorDefinition = {
  name: "Range",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const [start, limit, delta] = [0, 1, 2].map((index) => context.constantNumbers(index)[0]) as [
      number,
      number,
      number,
    ];
    if (delta === 0) context.fail("the step is 0");
    const count = Math.max(0, Math.ceil((limit - start) / delta));
    return [{ dtype: context.input(0).dtype, shape: [count] }];
  },
  gradient: { zero: "made from constants" },
  flops: noFlops,
  inPlace: false,
  divisions: { never: "it is made of constants, and small" },
};

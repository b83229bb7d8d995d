import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";

const size = fc.integer({ min: 1, max: 4 });
const flag = fc.boolean();

test("Gemm: gradient over drawn sizes, transposes, factors and every way C broadcasts", () => {
  fc.assert(
    fc.property(
      size,
      size,
      size,
      flag,
      flag,
      fc.constantFrom(1, 0.5, -2),
      fc.constantFrom(1, 0.25),
      fc.integer({ min: 0, max: 5 }),
      (m, k, n, transA, transB, alpha, beta, form) => {
        const c = [undefined, [], [n], [1, n], [m, 1], [m, n]][form];
        checkGradient({
          inputs: {
            a: transA ? [k, m] : [m, k],
            b: transB ? [n, k] : [k, n],
            ...(c === undefined ? {} : { c }),
          },
          build: ({ a, b, c }, builder) =>
            builder.one("Gemm", c === undefined ? [a, b] : [a, b, c], {
              alpha,
              beta,
              transA,
              transB,
            }),
          second: true,
        });
      },
    ),
    { numRuns: 30, seed: 2, includeErrorInReport: true },
  );
});

import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";

const size = fc.integer({ min: 1, max: 4 });

test("MatMul: gradient over drawn shapes, with broadcast leading dims and vectors", () => {
  fc.assert(
    fc.property(size, size, size, size, fc.integer({ min: 0, max: 3 }), (m, k, n, batch, form) => {
      const shapes = [
        [
          [m, k],
          [k, n],
        ],
        [
          [batch, m, k],
          [k, n],
        ],
        [
          [batch, 1, m, k],
          [2, k, n],
        ],
        [[k], [batch, k, n]],
      ][form] as [number[], number[]];
      checkGradient({
        inputs: { a: shapes[0], b: shapes[1] },
        build: ({ a, b }, builder) => builder.one("MatMul", [a, b]),
        second: true,
      });
    }),
    { numRuns: 30, seed: 1, includeErrorInReport: true },
  );
});

import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";

const size = fc.integer({ min: 1, max: 3 });
const flag = fc.boolean();

/** Dims so that, after the transposes, the operand is (batch, rows, columns). */
function stored(
  batch: number[],
  rows: number,
  columns: number,
  trans: boolean,
  transBatch: boolean,
): number[] {
  const [i, j] = trans ? [columns, rows] : [rows, columns];
  return transBatch ? [i, ...batch, j] : [...batch, i, j];
}

test("FusedMatMul: gradient over drawn sizes and every transpose", () => {
  fc.assert(
    fc.property(
      size,
      size,
      size,
      size,
      flag,
      flag,
      flag,
      flag,
      (m, k, n, batch, tA, tB, bA, bB) => {
        checkGradient({
          inputs: { a: stored([batch, 2], m, k, tA, bA), b: stored([batch, 2], k, n, tB, bB) },
          build: ({ a, b }, builder) =>
            builder.one("com.microsoft::FusedMatMul", [a, b], {
              alpha: 0.5,
              transA: tA,
              transB: tB,
              transBatchA: bA,
              transBatchB: bB,
            }),
          second: true,
        });
      },
    ),
    { numRuns: 20, seed: 11, includeErrorInReport: true },
  );
});

test("FusedMatMul: gradient with a batch that broadcasts", () => {
  checkGradient({
    inputs: { a: [2, 1, 3, 2], b: [4, 3, 2] },
    build: ({ a, b }, builder) => builder.one("com.microsoft::FusedMatMul", [a, b], { transB: 1 }),
    second: true,
  });
});

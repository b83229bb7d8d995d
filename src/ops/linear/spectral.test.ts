import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { realFromHalf } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

const size = fc.integer({ min: 1, max: 6 });
const seed = fc.integer({ min: 1, max: 1e6 });
const runs = { seed: 1, includeErrorInReport: true };

test("DFT: gradients over drawn sizes, lengths, axes and directions", () => {
  fc.assert(
    fc.property(size, size, size, fc.nat(1), fc.nat(2), seed, (a, b, length, axis, kind, from) => {
      const inverse = kind === 1;
      const onesided = kind === 2;
      checkGradient({
        inputs: { x: [a, b, inverse || length % 2 === 0 ? (onesided ? 1 : 2) : 1] },
        seed: from,
        build: ({ x }, builder) =>
          builder.one("DFT", [x, builder.scalar("int64", length), builder.scalar("int64", axis)], {
            inverse,
            onesided,
          }),
        second: true,
      });
    }),
    { ...runs, numRuns: 40 },
  );
});

test("a real signal from half of its spectrum: gradients, with bins cut and filled up", () => {
  fc.assert(
    fc.property(size, size, seed, (bins, length, from) => {
      checkGradient({
        inputs: { x: [2, bins, 2] },
        seed: from,
        build: ({ x }) => realFromHalf(x as Value, 1, length),
      });
    }),
    { ...runs, numRuns: 20 },
  );
});

test("Det and Inverse: gradients, first and second", () => {
  for (const n of [1, 2, 3, 4, 5]) {
    for (const op of ["Det", "com.microsoft::Inverse"]) {
      checkGradient({
        inputs: { x: [2, n, n] },
        range: [0.4, 1.6],
        seed: 5 + n,
        build: ({ x }, b) => {
          const ones = Array.from({ length: n * n }, (_, at) => (at % (n + 1) === 0 ? 2 : 0));
          const diagonal = b.constant(tensorFrom("float64", [n, n], ones));
          return b.one(op, [b.one("Add", [x, diagonal])]);
        },
        second: true,
        tolerance: 1e-5,
      });
    }
  }
});

test("DFT and Det refuse what they cannot compute", () => {
  const b = newBuilder("bad");
  const x = b.input("x", { dtype: "float32", shape: [2, 3, 2] });
  const axis = (at: number) => b.scalar("int64", at);
  assert.throws(() => b.one("DFT", [x, undefined, axis(2)]), /the axis is not a dim of the signal/);
  assert.throws(
    () => b.one("DFT", [x, undefined, axis(1)], { onesided: 1 }),
    /onesided is for the spectrum of a real input/,
  );
  assert.throws(() => b.one("Det", [x]), /takes square matrices/);
});

import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";

const shape = fc.array(fc.integer({ min: 2, max: 4 }), { minLength: 1, maxLength: 3 });

test("LayerNormalization: gradient over drawn shapes, axes and scales; all outputs", () => {
  fc.assert(
    fc.property(shape, fc.nat(2), fc.integer({ min: 1, max: 3 }), (dims, at, outputs) => {
      const axis = at % dims.length;
      const normalized = dims.slice(axis);
      checkGradient({
        inputs: { x: dims, scale: normalized, bias: normalized.slice(-1) },
        build: ({ x, scale, bias }, builder) =>
          builder.emit("LayerNormalization", [x, scale, bias], { axis, epsilon: 0.1 }, { outputs }),
        range: [-2, 2],
        second: true,
      });
    }),
    { numRuns: 20, seed: 4, includeErrorInReport: true },
  );
});

test("LayerNormalization: gradient through the statistics alone", () => {
  for (const output of [1, 2]) {
    checkGradient({
      inputs: { x: [3, 4], scale: [4] },
      build: ({ x, scale }, builder) => {
        const all = builder.emit("LayerNormalization", [x, scale], {}, { outputs: 3 });
        return all[output] ?? [];
      },
      range: [-2, 2],
      second: true,
    });
  }
});

test("RMSNormalization: gradient over drawn shapes, axes and scales", () => {
  fc.assert(
    fc.property(shape, fc.nat(2), (dims, at) => {
      const axis = at % dims.length;
      checkGradient({
        inputs: { x: dims, scale: dims.slice(axis) },
        build: ({ x, scale }, builder) =>
          builder.one("RMSNormalization", [x, scale], { axis, epsilon: 0.1 }),
        range: [-2, 2],
        second: true,
      });
    }),
    { numRuns: 20, seed: 5, includeErrorInReport: true },
  );
});

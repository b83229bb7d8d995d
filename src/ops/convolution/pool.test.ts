import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";

const spatial = fc.record({
  size: fc.integer({ min: 3, max: 6 }),
  kernel: fc.integer({ min: 1, max: 3 }),
  stride: fc.integer({ min: 1, max: 3 }),
  before: fc.nat(1),
  after: fc.nat(1),
});
const drawn = fc.record({
  dims: fc.array(spatial, { minLength: 1, maxLength: 2 }),
  ceil: fc.boolean(),
});

test("MaxPool: gradient over drawn windows, overlapping ones too", () => {
  fc.assert(
    fc.property(drawn, ({ dims, ceil }) => {
      fc.pre(dims.every((dim) => dim.kernel > Math.max(dim.before, dim.after)));
      checkGradient({
        inputs: { x: [2, 2, ...dims.map((dim) => dim.size)] },
        build: ({ x }, builder) =>
          builder.one("MaxPool", [x], {
            kernel_shape: dims.map((dim) => dim.kernel),
            strides: dims.map((dim) => dim.stride),
            pads: [...dims.map((dim) => dim.before), ...dims.map((dim) => dim.after)],
            ceil_mode: ceil,
          }),
        second: true,
      });
    }),
    { numRuns: 25, seed: 9, includeErrorInReport: true },
  );
});

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

const POOLS: [string, Record<string, number>][] = [
  ["MaxPool", {}],
  ["AveragePool", {}],
  ["AveragePool", { count_include_pad: 1 }],
  ["LpPool", { p: 2 }],
  ["LpPool", { p: 3 }],
];

for (const [op, more] of POOLS) {
  test(`${op} ${JSON.stringify(more)}: gradient over drawn windows, overlapping ones too`, () => {
    fc.assert(
      fc.property(drawn, ({ dims, ceil }) => {
        fc.pre(dims.every((dim) => dim.kernel > Math.max(dim.before, dim.after)));
        checkGradient({
          inputs: { x: [2, 2, ...dims.map((dim) => dim.size)] },
          build: ({ x }, builder) =>
            builder.one(op, [x], {
              kernel_shape: dims.map((dim) => dim.kernel),
              strides: dims.map((dim) => dim.stride),
              pads: [...dims.map((dim) => dim.before), ...dims.map((dim) => dim.after)],
              ceil_mode: ceil,
              ...more,
            }),
          range: [0.1, 1],
          second: true,
        });
      }),
      { numRuns: 15, seed: 9, includeErrorInReport: true },
    );
  });
}

test("AveragePool over tiles: gradient", () => {
  checkGradient({
    inputs: { x: [2, 1, 4, 6] },
    build: ({ x }, builder) =>
      builder.one("AveragePool", [x], { kernel_shape: [2, 3], strides: [2, 3] }),
    second: true,
  });
});

for (const op of ["GlobalAveragePool", "GlobalMaxPool"]) {
  test(`${op}: gradient`, () => {
    checkGradient({
      inputs: { x: [2, 2, 3, 2] },
      build: ({ x }, builder) => builder.one(op, [x]),
      second: true,
    });
  });
}

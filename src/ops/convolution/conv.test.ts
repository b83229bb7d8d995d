import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";

const spatial = fc.record({
  size: fc.integer({ min: 3, max: 6 }),
  kernel: fc.integer({ min: 1, max: 3 }),
  stride: fc.integer({ min: 1, max: 3 }),
  dilation: fc.integer({ min: 1, max: 2 }),
  before: fc.integer({ min: 0, max: 2 }),
  after: fc.integer({ min: 0, max: 2 }),
  more: fc.nat(2),
});
const drawn = fc.record({
  batch: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 2 }),
  inputs: fc.integer({ min: 1, max: 2 }),
  outputs: fc.integer({ min: 1, max: 2 }),
  dims: fc.array(spatial, { minLength: 1, maxLength: 2 }),
  bias: fc.boolean(),
});
type Drawn = typeof drawn extends fc.Arbitrary<infer T> ? T : never;

function attributesOf({ group, dims }: Drawn) {
  return {
    group,
    strides: dims.map((dim) => dim.stride),
    dilations: dims.map((dim) => dim.dilation),
    pads: [...dims.map((dim) => dim.before), ...dims.map((dim) => dim.after)],
  };
}

const reach = (dim: Drawn["dims"][number]) => (dim.kernel - 1) * dim.dilation + 1;

test("Conv: gradient over drawn sizes, groups, strides, dilations and uneven pads", () => {
  fc.assert(
    fc.property(drawn, (given) => {
      const { batch, group, inputs, outputs, dims, bias } = given;
      fc.pre(dims.every((dim) => dim.size + dim.before + dim.after >= reach(dim)));
      checkGradient({
        inputs: {
          x: [batch, inputs * group, ...dims.map((dim) => dim.size)],
          w: [outputs * group, inputs, ...dims.map((dim) => dim.kernel)],
          ...(bias ? { b: [outputs * group] } : {}),
        },
        build: ({ x, w, b }, builder) =>
          builder.one("Conv", b === undefined ? [x, w] : [x, w, b], attributesOf(given)),
        second: dims.length === 1,
      });
    }),
    { numRuns: 25, seed: 7, includeErrorInReport: true },
  );
});

test("ConvTranspose: gradient over drawn sizes, groups, strides, dilations and pads", () => {
  fc.assert(
    fc.property(drawn, (given) => {
      const { batch, group, inputs, outputs, bias } = given;
      const dims = given.dims.map((dim) => ({ ...dim, size: dim.size - 2 }));
      const more = dims.map((dim) => dim.more % dim.stride);
      const full = dims.map(
        (dim, i) =>
          (dim.size - 1) * dim.stride + reach(dim) + (more[i] ?? 0) - dim.before - dim.after,
      );
      fc.pre(full.every((size) => size >= 1));
      checkGradient({
        inputs: {
          x: [batch, inputs * group, ...dims.map((dim) => dim.size)],
          w: [inputs * group, outputs, ...dims.map((dim) => dim.kernel)],
          ...(bias ? { b: [outputs * group] } : {}),
        },
        build: ({ x, w, b }, builder) =>
          builder.one("ConvTranspose", b === undefined ? [x, w] : [x, w, b], {
            ...attributesOf(given),
            output_padding: more,
          }),
        second: dims.length === 1,
      });
    }),
    { numRuns: 25, seed: 8, includeErrorInReport: true },
  );
});

test("Conv and ConvTranspose: gradient with auto_pad", () => {
  for (const op of ["Conv", "ConvTranspose"]) {
    for (const mode of ["SAME_UPPER", "SAME_LOWER", "VALID"]) {
      checkGradient({
        inputs: { x: [1, 2, 5, 4], w: [2, 2, 3, 2] },
        build: ({ x, w }, builder) => builder.one(op, [x, w], { auto_pad: mode, strides: [2, 1] }),
      });
    }
  }
});

test("Conv and ConvTranspose with many channels: gradient", () => {
  const attributes = { strides: [2, 1], dilations: [1, 2], pads: [1, 0, 2, 1] };
  checkGradient({
    inputs: { x: [2, 8, 6, 7], w: [2, 8, 3, 2] },
    build: ({ x, w }, builder) => builder.one("Conv", [x, w], attributes),
  });
  checkGradient({
    inputs: { x: [2, 2, 3, 4], w: [2, 9, 3, 2] },
    build: ({ x, w }, builder) => builder.one("ConvTranspose", [x, w], attributes),
  });
  checkGradient({
    inputs: { x: [2, 8, 5], w: [3, 8, 3] },
    build: ({ x, w }, builder) => builder.one("Conv", [x, w], { auto_pad: "SAME_UPPER" }),
    second: true,
  });
});

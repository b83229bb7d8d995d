import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { randomNumbers } from "../../../test/support/random.ts";
import { backward } from "../../autodiff/index.ts";
import { detach, mul, reduceSum, roiAlign } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { interpret } from "../../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

const size = fc.integer({ min: 2, max: 4 });
const seed = fc.integer({ min: 1, max: 1e6 });
const runs = { seed: 1, includeErrorInReport: true };

for (const mode of ["linear", "cubic", "nearest"]) {
  test(`GridSample, ${mode}: gradients over drawn shapes, paddings and coordinates`, () => {
    const paddings = fc.constantFrom("zeros", "border", "reflection");
    fc.assert(
      fc.property(size, size, size, paddings, fc.boolean(), seed, (h, w, places, ...rest) => {
        const [padding_mode, align_corners, from] = rest;
        checkGradient({
          inputs: { x: [2, 2, h, w], grid: [2, places, 2, 2] },
          range: [-1.8, 1.8],
          seed: from,
          build: ({ x, grid }, b) =>
            b.one("GridSample", [x, grid], { mode, padding_mode, align_corners }),
        });
      }),
      { ...runs, numRuns: 20 },
    );
  });
}

test("GridSample over three dims, and its second gradient", () => {
  checkGradient({
    inputs: { x: [1, 2, 3, 2, 4], grid: [1, 2, 2, 1, 3] },
    build: ({ x, grid }, b) => b.one("GridSample", [x, grid]),
    second: true,
  });
});

test("DeformConv: gradients of all five inputs over drawn kernels, groups and strides", () => {
  const one = fc.integer({ min: 1, max: 2 });
  fc.assert(
    fc.property(one, one, one, one, one, seed, (kernel, group, moved, stride, dilation, from) => {
      const places = Math.floor((4 + 1 - dilation * (kernel - 1) - 1) / stride) + 1;
      const read = moved * kernel * kernel;
      checkGradient({
        inputs: {
          x: [1, 4, 4, 4],
          w: [2, 4 / group, kernel, kernel],
          offsets: [1, 2 * read, places, places],
          bias: [2],
          factors: [1, read, places, places],
        },
        range: [-1.2, 1.2],
        seed: from,
        build: ({ x, w, offsets, bias, factors }, b) =>
          b.one("DeformConv", [x, w, offsets, bias, factors], {
            group,
            offset_group: moved,
            pads: [1, 0, 0, 1],
            strides: [stride, stride],
            dilations: [dilation, dilation],
          }),
      });
    }),
    { ...runs, numRuns: 12 },
  );
});

test("Col2Im: gradients over drawn windows", () => {
  const one = fc.integer({ min: 1, max: 2 });
  fc.assert(
    fc.property(one, one, one, fc.nat(1), seed, (kernel, stride, dilation, before, from) => {
      const places = Math.floor((4 + before - dilation * (kernel - 1) - 1) / stride) + 1;
      checkGradient({
        inputs: { x: [2, 3 * kernel * kernel, places * places] },
        seed: from,
        build: ({ x }, b) =>
          b.one("Col2Im", [x, b.ints([4, 4]), b.ints([kernel, kernel])], {
            pads: [before, 0, 0, before],
            strides: [stride, stride],
            dilations: [dilation, dilation],
          }),
        second: true,
      });
    }),
    { ...runs, numRuns: 15 },
  );
});

test("roiAlign: the gradient of images, and none of regions", () => {
  const boxes = tensorFrom("float64", [2, 4], [0.4, -0.7, 3.1, 2.2, 1.3, 0.2, 2.4, 3.9]);
  const pictures = tensorFrom("int32", [2], [1, 0]);
  for (const samples of [0, 2]) {
    checkGradient({
      inputs: { x: [2, 2, 4, 3] },
      build: ({ x }, b) =>
        roiAlign(x as Value, b.constant(boxes), b.constant(pictures), {
          height: 2,
          width: 2,
          samples,
        }),
    });
  }
});

test("detach gives the value to the last bit, as a constant", () => {
  const b = newBuilder("detach");
  const given = tensorFrom("float32", [6], [...randomNumbers(3, 4), 1e-3, -7e5]);
  const x = b.input("x", given);
  const loss = reduceSum(mul(x, detach(x)), { keepdims: false });
  const [gradient] = backward([loss], [x]);
  const graph = b.build([gradient as Value]);
  const result = Object.values(interpret(graph, { x: given }))[0] as Tensor;
  assert.deepEqual(toNumbers(result), toNumbers(given));
});

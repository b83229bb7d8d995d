import assert from "node:assert/strict";
import { test } from "node:test";
import { divisionTrials } from "../../../test/support/division-check.ts";
import { drawn } from "../../../test/support/random.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { convolution } from "./index.ts";

const { onTwo, tried } = divisionTrials();

const ints = (...numbers: number[]) => {
  return { constant: tensorFrom("int64", [numbers.length], numbers) };
};
const floats = (...numbers: number[]) => {
  return { constant: tensorFrom("float32", [numbers.length], numbers) };
};
const image = drawn([6, 12, 5, 7]);

test("a convolution is divided by samples, channels, and into terms of a sum", () => {
  const op = "Conv";
  const attributes = { pads: [1, 0, 2, 1], strides: [2, 1] };
  const [kernel, bias] = [drawn([6, 12, 3, 2], { seed: 3 }), drawn([6], { seed: 4 })];
  assert.deepEqual(onTwo({ op, attributes, inputs: [image, kernel, bias] }), [
    "whole, whole, whole -> whole",
    "0, whole, whole -> 0",
    "whole, 0, 0 -> 1",
    "1, 1, partial -> partial",
    "partial, whole, partial -> partial",
    "whole, partial, partial -> partial",
  ]);
  const proportions = [[1, 1, 1]];
  const without = onTwo({ op, inputs: [image, kernel], proportions });
  assert.ok(without.includes("whole, 0(2+2+2) -> 1(2+2+2)"));
  assert.ok(without.includes("1(4+4+4), 1(4+4+4) -> partial"));
  onTwo({ op, attributes: { auto_pad: "SAME_UPPER" }, inputs: [image, kernel, null] });
  onTwo({ op, inputs: [drawn([5, 7, 9]), drawn([5, 7, 2])] });
});

test("a grouped convolution is divided by groups or within each of them", () => {
  const op = "Conv";
  const inputs = [image, drawn([24, 2, 3, 3], { seed: 3 }), drawn([24], { seed: 4 })];
  const six = onTwo({ op, attributes: { group: 6 }, inputs, proportions: [[1, 1, 1]] });
  assert.ok(six.includes("1, 0, 0 -> 1"));
  assert.ok(six.includes("1(4+4+4), 0(8+8+8), 0(8+8+8) -> 1(8+8+8)"));
  const each = (size: number) => new Array(6).fill(size).join("+");
  assert.ok(six.includes(`whole, 0(${each(4)}), 0(${each(4)}) -> 1(${each(4)})`));
  assert.ok(six.includes(`1(${each(2)}), 1, partial -> partial`));
  const depthwise = [image, drawn([12, 1, 3, 3], { seed: 3 })];
  const alone = onTwo({ op, attributes: { group: 12 }, inputs: depthwise });
  assert.deepEqual(alone, [
    "whole, whole -> whole",
    "0, whole -> 0",
    "1, 0 -> 1",
    "partial, whole -> partial",
    "whole, partial -> partial",
  ]);
});

test("a transposed convolution is divided as a convolution", () => {
  const op = "ConvTranspose";
  const attributes = { strides: [2, 1], output_padding: [1, 0] };
  const [kernel, bias] = [drawn([12, 6, 3, 2], { seed: 3 }), drawn([6], { seed: 4 })];
  assert.deepEqual(onTwo({ op, attributes, inputs: [image, kernel, bias] }), [
    "whole, whole, whole -> whole",
    "0, whole, whole -> 0",
    "whole, 1, 0 -> 1",
    "1, 0, partial -> partial",
    "partial, whole, partial -> partial",
    "whole, partial, partial -> partial",
  ]);
  const grouped = [image, kernel, drawn([12], { seed: 4 })];
  const two = onTwo({ op, attributes: { group: 2 }, inputs: grouped });
  assert.ok(two.includes("1, 0, 0 -> 1"));
  assert.ok(two.includes("whole, 1, 0(6+6) -> 1(6+6)"));
  const sized = { output_shape: [10, 14], strides: [2, 2], auto_pad: "SAME_LOWER" };
  onTwo({ op, attributes: sized, inputs: [image, kernel] });
  onTwo({ op, inputs: [drawn([5, 7, 9]), drawn([7, 5, 2])] });
});

test("pools are divided by samples and channels", () => {
  const attributes = { kernel_shape: [2, 3], strides: [2, 2], pads: [1, 1, 0, 1], ceil_mode: 1 };
  const proportions = [
    [1, 1, 1],
    [1, 2],
  ];
  for (const op of ["AveragePool", "LpPool", "MaxPool"]) {
    const found = onTwo({ op, attributes, inputs: [image] });
    assert.deepEqual(found.slice(0, 3), ["whole -> whole", "0 -> 0", "1 -> 1"]);
    assert.equal(found.includes("partial -> partial"), op === "AveragePool");
    onTwo({ op, attributes, inputs: [drawn([5, 7, 6, 6])] });
  }
  const indices = onTwo({ op: "MaxPool", attributes, inputs: [image], outputs: 2, proportions });
  assert.ok(indices.includes("0 -> 0, 0"));
  assert.ok(indices.includes("1(4+4+4) -> 1(4+4+4), 1(4+4+4)"));
});

test("pools over all places are divided along these, too", () => {
  const inputs = [drawn([6, 5, 12])];
  const mean = onTwo({ op: "GlobalAveragePool", inputs });
  assert.deepEqual(mean, ["whole -> whole", "0 -> 0", "2 -> partial", "partial -> partial"]);
  const largest = onTwo({ op: "GlobalMaxPool", inputs });
  assert.deepEqual(largest, ["whole -> whole", "0 -> 0", "2 -> partial max"]);
});

test("Resize is divided along dims that keep their sizes", () => {
  const op = "Resize";
  const scales = [image, null, floats(1, 1, 2, 1.5)];
  assert.deepEqual(onTwo({ op, inputs: scales }), [
    "whole, whole, whole -> whole",
    "0, whole, whole -> 0",
    "1, whole, whole -> 1",
    "partial, whole, whole -> partial",
  ]);
  const sizes = [image, null, null, ints(6, 12, 9, 7)];
  const linear = { mode: "linear" };
  const all = onTwo({ op, attributes: linear, inputs: sizes, proportions: [[1, 1, 1]] });
  assert.ok(all.includes("1(4+4+4), whole, whole, whole -> 1(4+4+4)"));
  const last = [image, null, null, ints(9, 12)];
  const some = onTwo({ op, attributes: { ...linear, axes: [-2, -1] }, inputs: last });
  assert.ok(some.includes("0, whole, whole, whole -> 0"));
  const policy = { axes: [2, 1], keep_aspect_ratio_policy: "not_larger" };
  onTwo({ op, attributes: policy, inputs: [image, null, null, ints(10, 12)] });
  onTwo({ op, attributes: policy, inputs: [image, null, null, ints(5, 14)] });
  const region = floats(0, 0, 0.5, -0.5, 1, 1, 1, 1.5);
  for (const extrapolation_value of [0, 3]) {
    const crop = { coordinate_transformation_mode: "tf_crop_and_resize", extrapolation_value };
    const inputs = [image, region, null, ints(6, 12, 4, 9)];
    const found = onTwo({ op, attributes: { ...linear, ...crop }, inputs });
    const isLinear = found.some((text) => text.startsWith("partial"));
    assert.equal(isLinear, extrapolation_value === 0);
  }
});

test("every operator on windows was divided", () => {
  const ops = Object.values(convolution).map(({ name }) => name);
  assert.deepEqual([...tried].sort(), ops.sort());
});

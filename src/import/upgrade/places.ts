/**
 * Operators about positions in images, composed of others: grids, crops, pools and their inverses.
 */
import {
  abs,
  add,
  concat,
  expand,
  full,
  gather,
  matmul,
  mul,
  pad,
  pow,
  range,
  reduceL1,
  reduceL2,
  reduceSum,
  reshape,
  scatterElements,
  slice,
  swapLast,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { elementCount, normalizeDim } from "../../tensor/index.ts";
import type { Rule, RuleTable } from "./rule.ts";

/**
 * The coordinates of each position of an image, from -1 to 1, transformed by a matrix (N, dims,
 * dims + 1), as GridSample takes them.
 */
const affineGrid: Rule = ({ input, numbers, int, fail }) => {
  const theta = input(0);
  const [batch, , ...sizes] = numbers(1) as [number, number, ...number[]];
  const dims = sizes.length;
  const [own, rows, columns] = theta.shape;
  if (own !== batch || rows !== dims || columns !== dims + 1 || theta.shape.length !== 3) {
    return fail(`matrices [${theta.shape.join(", ")}] do not fit pictures of ${dims} dims`);
  }
  const isAligned = int("align_corners", 0) === 1;
  const along = sizes.map((size, dim) => {
    const step = isAligned ? 2 / Math.max(1, size - 1) : 2 / size;
    const start = isAligned ? (size === 1 ? 0 : -1) : 1 / size - 1;
    const at = add(mul(range(theta.builder, theta.dtype, 0, size), step), start);
    const shape = [...sizes.map((_, other) => (other === dim ? size : 1)), 1];
    return expand(reshape(at, shape), [...sizes, 1]);
  });
  const ones = full(theta.builder, theta.dtype, [...sizes, 1], 1);
  const places = reshape(concat([...along.reverse(), ones], dims), [elementCount(sizes), dims + 1]);
  return [reshape(matmul(places, swapLast(theta)), [batch, ...sizes, dims])];
};

/** Cuts or zero-pads a tensor evenly on both sides. */
const centerCropPad: Rule = ({ input, numbers, ints, fail }) => {
  const x = input(0);
  const sizes = numbers(1);
  const axes = ints("axes") ?? x.shape.map((_, dim) => dim);
  if (sizes.length !== axes.length)
    return fail(`it has ${sizes.length} sizes for ${axes.length} dims`);
  const before = x.shape.map(() => 0);
  const after = [...before];
  let cut = x;
  for (const [i, axis] of axes.entries()) {
    const dim = normalizeDim(axis, x.shape.length) ?? fail(`axis ${axis} is out of range`);
    const [own, size] = [x.shape[dim] as number, sizes[i] as number];
    if (own > size) {
      const start = Math.floor((own - size) / 2);
      cut = slice(cut, [{ axis: dim, start, end: start + size }]);
    } else {
      before[dim] = Math.floor((size - own) / 2);
      after[dim] = size - own - before[dim];
    }
  }
  return [pad(cut, before, after)];
};

/** (Σ |x|ᵖ)^(1/p) over all positions of each channel. */
const globalLpPool: Rule = ({ input, int }) => {
  const x = input(0);
  const axes = x.shape.slice(2).map((_, dim) => dim + 2);
  const p = int("p", 2);
  if (p === 1) return [reduceL1(x, { axes })];
  if (p === 2) return [reduceL2(x, { axes })];
  return [pow(reduceSum(pow(abs(x), p), { axes }), 1 / p)];
};

/**
 * Puts each element back where MaxPool found it, by its index among all elements; zeros elsewhere.
 */
const maxUnpool: Rule = ({ node, input, ints, fail }) => {
  const [x, numbers] = [input(0), input(1)];
  if (node.inputs[2] !== undefined) return fail("an explicit shape of its output is not supported");
  const kernel = ints("kernel_shape") ?? [];
  const pads = ints("pads") ?? [];
  const sizes = kernel.map((size, dim) => {
    const stride = ints("strides")?.[dim] ?? 1;
    const padding = (pads[dim] ?? 0) + (pads[dim + kernel.length] ?? 0);
    return ((x.shape[dim + 2] as number) - 1) * stride + size - padding;
  });
  const shape = [...x.shape.slice(0, 2), ...sizes];
  const count = [elementCount(x.shape)];
  const zeros = full(x.builder, x.dtype, [elementCount(shape)], 0);
  const flat = scatterElements(zeros, reshape(numbers, count), reshape(x, count), 0);
  return [reshape(flat, shape)];
};

/** The parts along an axis where a condition is true, which must be known beforehand. */
const compress: Rule = ({ input, numbers, attribute, int, builder, fail }) => {
  const x: Value = input(0);
  const chosen = numbers(1).flatMap((holds, index) => (holds === 0 ? [] : [index]));
  const flat = attribute("axis") === undefined;
  const axis = flat ? 0 : normalizeDim(int("axis", 0), x.shape.length);
  if (axis === undefined) return fail(`axis ${int("axis", 0)} is out of range`);
  const list = flat ? reshape(x, [elementCount(x.shape)]) : x;
  return [gather(list, builder.ints(chosen), axis)];
};

export const placeRules: RuleTable = {
  AffineGrid: [{ rule: affineGrid }],
  CenterCropPad: [{ rule: centerCropPad }],
  Compress: [{ rule: compress }],
  GlobalLpPool: [{ rule: globalLpPool }],
  MaxUnpool: [{ rule: maxUnpool }],
};

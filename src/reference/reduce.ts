import type { reduce } from "../ops/reduce/index.ts";
import { normalizeDim, stridesOf } from "../tensor/index.ts";
import type { Kernel, KernelContext } from "./kernel.ts";
import { fill } from "./tensor.ts";

/** For each output element, the elements that it is reduced from, in order. */
function groups({ input, inputs, attributes }: KernelContext): number[][] {
  const { data, shape } = input(0);
  const axes = inputs[1]?.data ?? [];
  const all = axes.length === 0 && attributes.number("noop_with_empty_axes") === 0;
  const dims = new Set(Array.from(axes, (axis) => normalizeDim(axis, shape.length) as number));
  const isReduced = (dim: number) => all || dims.has(dim);
  const kept = shape.map((size, dim) => (isReduced(dim) ? 1 : size));
  const strides = stridesOf(shape);
  const keptStrides = stridesOf(kept);
  const result = Array.from({ length: kept.reduce((a, b) => a * b, 1) }, (): number[] => []);
  for (let i = 0; i < data.length; i++) {
    let at = 0;
    for (let dim = 0; dim < shape.length; dim++) {
      if (isReduced(dim)) continue;
      at +=
        (Math.floor(i / (strides[dim] as number)) % (shape[dim] as number)) *
        (keptStrides[dim] as number);
    }
    (result[at] as number[]).push(data[i] as number);
  }
  return result;
}

function reduceKernel(compute: (values: readonly number[]) => number): Kernel {
  return (context) => [{ ...context.output(0), data: Float64Array.from(groups(context), compute) }];
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const max = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b));

function logSumExp(values: readonly number[]): number {
  const highest = max(values);
  if (!Number.isFinite(highest)) return highest;
  return highest + Math.log(sum(values.map((value) => Math.exp(value - highest))));
}

/** The index along `axis` of the element that is `better` than all others. */
function positionKernel(better: (a: number, b: number) => boolean): Kernel {
  return ({ input, output, attributes }) => {
    const { data, shape } = input(0);
    const axis = normalizeDim(attributes.number("axis"), shape.length) as number;
    const takesLast = attributes.number("select_last_index") === 1;
    const stride = stridesOf(shape)[axis] as number;
    const size = shape[axis] as number;
    const type = output(0);
    const position = (index: number) => {
      const start = Math.floor(index / stride) * stride * size + (index % stride);
      let best = 0;
      for (let i = 1; i < size; i++) {
        const [a, b] = [data[start + i * stride] as number, data[start + best * stride] as number];
        if (better(a, b) || (takesLast && a === b)) best = i;
      }
      return best;
    };
    return [fill(type.dtype, type.shape, position)];
  };
}

export const reduceKernels: Record<keyof typeof reduce, Kernel> = {
  ArgMax: positionKernel((a, b) => a > b),
  ArgMin: positionKernel((a, b) => a < b),
  ReduceL1: reduceKernel((values) => sum(values.map(Math.abs))),
  ReduceL2: reduceKernel((values) => Math.sqrt(sum(values.map((value) => value * value)))),
  ReduceLogSum: reduceKernel((values) => Math.log(sum(values))),
  ReduceLogSumExp: reduceKernel(logSumExp),
  ReduceMax: reduceKernel(max),
  ReduceMean: reduceKernel((values) => sum(values) / values.length),
  ReduceMin: reduceKernel((values) => values.reduce((a, b) => Math.min(a, b))),
  ReduceProd: reduceKernel((values) => values.reduce((a, b) => a * b, 1)),
  ReduceSum: reduceKernel(sum),
  ReduceSumSquare: reduceKernel((values) => sum(values.map((value) => value * value))),
};

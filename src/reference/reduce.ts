import type { reduce } from "../ops/reduce/index.ts";
import { normalizeDim, stridesOf } from "../tensor/index.ts";
import type { Kernel, KernelContext } from "./kernel.ts";

/** The elements that each output element is reduced from, in order. */
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

export const reduceKernels: Record<keyof typeof reduce, Kernel> = {
  ReduceSum: reduceKernel(sum),
};

/** The random draws of the reference: pure functions, so equal seeds give equal numbers. */
import type { random } from "../ops/random/index.ts";
import type { Kernel, KernelContext } from "./kernel.ts";
import { fill } from "./tensor.ts";

/**
 * A number in [0, 1) that depends on position and seed only: the fraction of a large sine,
 * uniformly distributed.
 */
function unit({ attributes }: KernelContext, place: number): number {
  const seed = attributes.has("seed") ? attributes.number("seed") : 0;
  const large = Math.sin(place * 12.9898 + seed * 78.233 + 1) * 43758.5453;
  return large - Math.floor(large);
}

const uniform: Kernel = (context) => {
  const { dtype, shape } = context.output(0);
  const [low, high] = [context.attributes.number("low"), context.attributes.number("high")];
  return [fill(dtype, shape, (i) => low + (high - low) * unit(context, i))];
};

const normal: Kernel = (context) => {
  const { dtype, shape } = context.output(0);
  const value = (i: number) => {
    const radius = Math.sqrt(-2 * Math.log(1 - unit(context, 2 * i)));
    const drawn = radius * Math.cos(2 * Math.PI * unit(context, 2 * i + 1));
    return context.attributes.number("mean") + context.attributes.number("scale") * drawn;
  };
  return [fill(dtype, shape, value)];
};

const bernoulli: Kernel = (context) => {
  const chances = context.input(0).data;
  const { dtype, shape } = context.output(0);
  return [fill(dtype, shape, (i) => (unit(context, i) < (chances[i] as number) ? 1 : 0))];
};

export const randomKernels: Record<keyof typeof random, Kernel> = {
  Bernoulli: bernoulli,
  RandomNormal: normal,
  RandomNormalLike: normal,
  RandomUniform: uniform,
  RandomUniformLike: uniform,
};

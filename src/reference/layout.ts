import type { layout } from "../ops/layout/index.ts";
import { broadcastReader, type Kernel, ravel, unravel } from "./kernel.ts";
import { fill } from "./tensor.ts";

export const layoutKernels: Record<keyof typeof layout, Kernel> = {
  Expand: ({ input, output }) => {
    const { dtype, shape } = output(0);
    return [fill(dtype, shape, broadcastReader(input(0), shape))];
  },
  Identity: ({ input }) => [{ ...input(0), data: input(0).data.slice() }],
  Reshape: ({ input, output }) => [{ ...output(0), data: input(0).data.slice() }],
  Transpose: ({ input, output, attributes }) => {
    const x = input(0);
    const perm = attributes.has("perm")
      ? attributes.numbers("perm")
      : x.shape.map((_, dim) => x.shape.length - 1 - dim);
    const { dtype, shape } = output(0);
    const source = (index: number) => {
      const at = new Array<number>(shape.length);
      for (const [dim, position] of unravel(index, shape).entries()) {
        at[perm[dim] as number] = position;
      }
      return x.data[ravel(at, x.shape)] as number;
    };
    return [fill(dtype, shape, source)];
  },
};

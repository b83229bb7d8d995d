import { assert } from "../errors.ts";
import type { layout } from "../ops/layout/index.ts";
import { elementCount, normalizeDim, type TensorType, tensorFrom } from "../tensor/index.ts";
import { broadcastReader, type Kernel, type KernelContext, ravel, unravel } from "./kernel.ts";
import { fill, fromTensor, type ReferenceTensor } from "./tensor.ts";

/**
 * A result each element of which is the element of `x` at the position that `source` returns
 * (undefined: `other`).
 */
function moved(
  { dtype, shape }: TensorType,
  x: ReferenceTensor,
  source: (at: readonly number[]) => readonly number[] | undefined,
  other = 0,
): ReferenceTensor {
  return fill(dtype, shape, (index) => {
    const from = source(unravel(index, shape));
    return from === undefined ? other : (x.data[ravel(from, x.shape)] as number);
  });
}

const same: Kernel = ({ input, output }) => [{ ...output(0), data: input(0).data.slice() }];

const concat: Kernel = ({ inputs, output, attributes }) => {
  const type = output(0);
  const axis = normalizeDim(attributes.number("axis"), type.shape.length) as number;
  const parts = inputs.filter((part) => part !== undefined);
  const value = (index: number) => {
    const at = unravel(index, type.shape);
    let place = at[axis] as number;
    for (const part of parts) {
      const size = part.shape[axis] as number;
      if (place < size) return part.data[ravel(at.with(axis, place), part.shape)] as number;
      place -= size;
    }
    return assert(false, "places are within the parts") as never;
  };
  return [fill(type.dtype, type.shape, value)];
};

const split: Kernel = ({ input, outputs, attributes }) => {
  const x = input(0);
  const axis = normalizeDim(attributes.number("axis"), x.shape.length) as number;
  let start = 0;
  return outputs.map((type) => {
    const offset = start;
    start += type.shape[axis] as number;
    return moved(type, x, (at) => at.with(axis, (at[axis] as number) + offset));
  });
};

/** The positions that a slice of one dim takes, one after the other. */
function walk(size: number, given: number, limit: number, step: number): number[] {
  const places: number[] = [];
  let at = given < 0 ? given + size : given;
  const end = limit < 0 ? limit + size : limit;
  at = Math.min(Math.max(at, 0), step > 0 ? size : size - 1);
  const stop = Math.min(Math.max(end, -1), size);
  for (; step > 0 ? at < stop : at > stop; at += step) places.push(at);
  return places;
}

const slice: Kernel = ({ input, inputs, output }) => {
  const x = input(0);
  const places = x.shape.map((size) => Array.from({ length: size }, (_, i) => i));
  for (const [index, start] of input(1).data.entries()) {
    const dim = normalizeDim(inputs[3]?.data[index] ?? index, x.shape.length) as number;
    const end = input(2).data[index] as number;
    places[dim] = walk(x.shape[dim] as number, start, end, inputs[4]?.data[index] ?? 1);
  }
  return [moved(output(0), x, (at) => at.map((i, dim) => (places[dim] as number[])[i] as number))];
};

/** The position that mode `mode` reads in a dim of `size` for a position that may lie outside. */
function within(place: number, size: number, mode: string): number | undefined {
  if (place >= 0 && place < size) return place;
  switch (mode) {
    case "constant":
      return undefined;
    case "edge":
      return place < 0 ? 0 : size - 1;
    case "wrap":
      return (place + size) % size;
    default:
      return place < 0 ? -place : 2 * (size - 1) - place;
  }
}

const pad: Kernel = ({ input, inputs, output, attributes }) => {
  const x = input(0);
  const axes = inputs[3] === undefined ? x.shape.map((_, dim) => dim) : [...inputs[3].data];
  const before = x.shape.map(() => 0);
  for (const [index, axis] of axes.entries()) {
    before[normalizeDim(axis, x.shape.length) as number] = input(1).data[index] as number;
  }
  const mode = attributes.string("mode");
  const source = (at: readonly number[]) => {
    const from = at.map((place, dim) =>
      within(place - (before[dim] as number), x.shape[dim] as number, mode),
    );
    return from.some((place) => place === undefined) ? undefined : (from as number[]);
  };
  return [moved(output(0), x, source, inputs[2]?.data[0] ?? 0)];
};

const trilu: Kernel = ({ input, inputs, output, attributes }) => {
  const k = inputs[1]?.data[0] ?? 0;
  const upper = attributes.number("upper") === 1;
  const source = (at: readonly number[]) => {
    const diagonal = (at.at(-1) as number) - (at.at(-2) as number);
    return (upper ? diagonal >= k : diagonal <= k) ? at : undefined;
  };
  return [moved(output(0), input(0), source)];
};

const depthToSpace: Kernel = ({ input, output, attributes }) => {
  const block = attributes.number("blocksize");
  const channels = output(0).shape[1] as number;
  const blocksFirst = attributes.string("mode") === "DCR";
  const source = ([batch, channel, row, column]: readonly number[]) => {
    const inBlock = ((row as number) % block) * block + ((column as number) % block);
    const from = blocksFirst
      ? inBlock * channels + (channel as number)
      : (channel as number) * block * block + inBlock;
    const down = (place: number) => Math.floor(place / block);
    return [batch as number, from, down(row as number), down(column as number)];
  };
  return [moved(output(0), input(0), source)];
};

const spaceToDepth: Kernel = ({ input, output, attributes }) => {
  const block = attributes.number("blocksize");
  const channels = input(0).shape[1] as number;
  const source = ([batch, depth, row, column]: readonly number[]) => {
    const inBlock = Math.floor((depth as number) / channels);
    return [
      batch as number,
      (depth as number) % channels,
      (row as number) * block + Math.floor(inBlock / block),
      (column as number) * block + (inBlock % block),
    ];
  };
  return [moved(output(0), input(0), source)];
};

function constant({ attributes, output }: KernelContext): ReferenceTensor[] {
  if (attributes.has("value")) return [fromTensor(attributes.tensor("value"))];
  const { dtype, shape } = output(0);
  for (const name of ["value_float", "value_int"]) {
    if (attributes.has(name)) return [fill(dtype, shape, () => attributes.number(name))];
  }
  const name = attributes.has("value_floats") ? "value_floats" : "value_ints";
  return [fromTensor(tensorFrom(dtype, shape, attributes.numbers(name)))];
}

export const layoutKernels: Record<keyof typeof layout, Kernel> = {
  Concat: concat,
  Constant: constant,
  ConstantOfShape: ({ output, attributes }) => {
    const { dtype, shape } = output(0);
    const value = attributes.has("value") ? fromTensor(attributes.tensor("value")).data[0] : 0;
    return [fill(dtype, shape, () => value as number)];
  },
  DepthToSpace: depthToSpace,
  Expand: ({ input, output }) => {
    const { dtype, shape } = output(0);
    return [fill(dtype, shape, broadcastReader(input(0), shape))];
  },
  EyeLike: ({ output, attributes }) => {
    const { dtype, shape } = output(0);
    const k = attributes.number("k");
    const isOn = ([row, column]: number[]) => (column as number) - (row as number) === k;
    return [fill(dtype, shape, (index) => Number(isOn(unravel(index, shape))))];
  },
  Flatten: same,
  Identity: same,
  "lockstep::Detach": same,
  NonZero: () => assert(false, "NonZero is refused by inference") as never,
  Pad: pad,
  Range: ({ input, output }) => {
    const [start, delta] = [input(0).data[0] as number, input(2).data[0] as number];
    return [fill(output(0).dtype, output(0).shape, (index) => start + index * delta)];
  },
  Reshape: same,
  Shape: ({ input, output, attributes }) => {
    const start = attributes.number("start");
    const sizes = input(0).shape.slice(start < 0 ? start + input(0).shape.length : start);
    return [fill("int64", output(0).shape, (index) => sizes[index] as number)];
  },
  Size: ({ input }) => [fill("int64", [], () => elementCount(input(0).shape))],
  Slice: slice,
  SpaceToDepth: spaceToDepth,
  Split: split,
  Squeeze: same,
  Tile: ({ input, output }) => {
    const x = input(0);
    return [moved(output(0), x, (at) => at.map((i, dim) => i % (x.shape[dim] as number)))];
  },
  Transpose: ({ input, output, attributes }) => {
    const x = input(0);
    const perm = attributes.has("perm")
      ? attributes.numbers("perm")
      : x.shape.map((_, dim) => x.shape.length - 1 - dim);
    return [moved(output(0), x, (at) => x.shape.map((_, dim) => at[perm.indexOf(dim)] as number))];
  },
  Trilu: trilu,
  Unsqueeze: same,
};

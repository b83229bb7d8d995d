import type { indexing } from "../ops/indexing/index.ts";
import { elementCount, normalizeDim, type Shape } from "../tensor/index.ts";
import { type Kernel, type KernelContext, ravel, unravel } from "./kernel.ts";
import { fill, type ReferenceTensor } from "./tensor.ts";

function axisOf({ attributes }: KernelContext, shape: Shape): number {
  return normalizeDim(attributes.number("axis"), shape.length) as number;
}

/** Converts an index that may count from the end to one that counts from the start. */
function fromStart(place: number, size: number): number {
  return place < 0 ? place + size : place;
}

const combine: Record<string, (old: number, update: number) => number> = {
  none: (_, update) => update,
  add: (old, update) => old + update,
  mul: (old, update) => old * update,
  max: Math.max,
  min: Math.min,
};

const gather: Kernel = (context) => {
  const [x, indices] = [context.input(0), context.input(1)];
  const axis = axisOf(context, x.shape);
  const { dtype, shape } = context.output(0);
  const value = (index: number) => {
    const at = unravel(index, shape);
    const place = at.slice(axis, axis + indices.shape.length);
    const number = indices.data[ravel(place, indices.shape)] as number;
    const from = at.toSpliced(
      axis,
      indices.shape.length,
      fromStart(number, x.shape[axis] as number),
    );
    return x.data[ravel(from, x.shape)] as number;
  };
  return [fill(dtype, shape, value)];
};

/**
 * The flat index in `shape` that element `index` of `indices` points to, with its own index along
 * `axis`.
 */
function pointed(indices: ReferenceTensor, index: number, axis: number, shape: Shape): number {
  const at = unravel(index, indices.shape);
  const number = fromStart(indices.data[index] as number, shape[axis] as number);
  return ravel(at.with(axis, number), shape);
}

const gatherElements: Kernel = (context) => {
  const [x, indices] = [context.input(0), context.input(1)];
  const axis = axisOf(context, x.shape);
  const { dtype, shape } = context.output(0);
  return [fill(dtype, shape, (i) => x.data[pointed(indices, i, axis, x.shape)] as number)];
};

const scatterElements: Kernel = (context) => {
  const [x, indices, updates] = [context.input(0), context.input(1), context.input(2)];
  const axis = axisOf(context, x.shape);
  const data = x.data.slice();
  const put = combine[context.attributes.string("reduction")] as (a: number, b: number) => number;
  for (const [i, update] of updates.data.entries()) {
    const at = pointed(indices, i, axis, x.shape);
    data[at] = put(data[at] as number, update);
  }
  return [{ ...context.output(0), data }];
};

/**
 * For each tuple, the offset of the part that it names, and the number of elements of such a part.
 */
function partsAt(x: ReferenceTensor, tuples: ReferenceTensor, batch: number) {
  const depth = tuples.shape.at(-1) as number;
  const inner = elementCount(x.shape.slice(batch + depth));
  const lead = tuples.shape.slice(0, -1);
  const offsets = Array.from({ length: elementCount(lead) }, (_, tuple) => {
    const shared = unravel(tuple, lead).slice(0, batch);
    const own = Array.from({ length: depth }, (__, i) =>
      fromStart(tuples.data[tuple * depth + i] as number, x.shape[batch + i] as number),
    );
    return ravel([...shared, ...own], x.shape.slice(0, batch + depth)) * inner;
  });
  return { offsets, inner };
}

const gatherND: Kernel = ({ input, output, attributes }) => {
  const x = input(0);
  const { offsets, inner } = partsAt(x, input(1), attributes.number("batch_dims"));
  const value = (index: number) =>
    x.data[(offsets[Math.floor(index / inner)] as number) + (index % inner)] as number;
  return [fill(output(0).dtype, output(0).shape, value)];
};

const scatterND: Kernel = ({ input, output, attributes }) => {
  const x = input(0);
  const { offsets, inner } = partsAt(x, input(1), 0);
  const data = x.data.slice();
  const put = combine[attributes.string("reduction")] as (a: number, b: number) => number;
  for (const [index, update] of input(2).data.entries()) {
    const at = (offsets[Math.floor(index / inner)] as number) + (index % inner);
    data[at] = put(data[at] as number, update);
  }
  return [{ ...output(0), data }];
};

const oneHot: Kernel = ({ input, output, attributes }) => {
  const [indices, values] = [input(0), input(2)];
  const { dtype, shape } = output(0);
  const axis = fromStart(attributes.number("axis"), shape.length);
  const depth = shape[axis] as number;
  const value = (index: number) => {
    const at = unravel(index, shape);
    const number = indices.data[ravel(at.toSpliced(axis, 1), indices.shape)] as number;
    return values.data[fromStart(number, depth) === at[axis] ? 1 : 0] as number;
  };
  return [fill(dtype, shape, value)];
};

const cumSum: Kernel = ({ input, output, attributes }) => {
  const x = input(0);
  const axis = fromStart(input(1).data[0] as number, x.shape.length);
  const exclusive = attributes.number("exclusive");
  const reverse = attributes.number("reverse") === 1;
  const value = (index: number) => {
    const at = unravel(index, x.shape);
    const here = at[axis] as number;
    const [first, last] = reverse
      ? [here + exclusive, (x.shape[axis] as number) - 1]
      : [0, here - exclusive];
    let sum = 0;
    for (let i = first; i <= last; i++) sum += x.data[ravel(at.with(axis, i), x.shape)] as number;
    return sum;
  };
  return [fill(output(0).dtype, x.shape, value)];
};

const topK: Kernel = (context) => {
  const x = context.input(0);
  const axis = axisOf(context, x.shape);
  const [values, places] = [context.output(0), context.output(1)];
  const direction = context.attributes.number("largest") === 1 ? -1 : 1;
  const ranked = (index: number): { value: number; place: number } => {
    const at = unravel(index, values.shape);
    const line = Array.from({ length: x.shape[axis] as number }, (_, place) => ({
      value: x.data[ravel(at.with(axis, place), x.shape)] as number,
      place,
    }));
    line.sort((a, b) => direction * (a.value - b.value) || a.place - b.place);
    return line[at[axis] as number] as { value: number; place: number };
  };
  return [
    fill(values.dtype, values.shape, (index) => ranked(index).value),
    fill(places.dtype, places.shape, (index) => ranked(index).place),
  ];
};

const reverseSequence: Kernel = ({ input, output, attributes }) => {
  const [x, lengths] = [input(0), input(1)];
  const [batch, time] = [attributes.number("batch_axis"), attributes.number("time_axis")];
  const value = (index: number) => {
    const at = unravel(index, x.shape);
    const length = lengths.data[at[batch] as number] as number;
    const place = at[time] as number;
    const from = place < length ? at.with(time, length - 1 - place) : at;
    return x.data[ravel(from, x.shape)] as number;
  };
  return [fill(output(0).dtype, x.shape, value)];
};

export const indexingKernels: Record<keyof typeof indexing, Kernel> = {
  CumSum: cumSum,
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherND,
  OneHot: oneHot,
  ReverseSequence: reverseSequence,
  ScatterElements: scatterElements,
  ScatterND: scatterND,
  TopK: topK,
};

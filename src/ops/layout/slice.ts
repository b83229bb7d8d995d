import { flip, pad, reshape, type SliceRange, slice as sliceOf } from "../../functional/index.ts";
import type {
  BatchContext,
  Division,
  DivisionContext,
  GradientContext,
  InferContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { normalizeDim, type Shape } from "../../tensor/index.ts";
import { along, divisionOf, rangeSections, shardIn } from "../divisions.ts";
import { noFlops } from "../shared.ts";

interface Range {
  readonly start: number;
  readonly step: number;
  readonly count: number;
}

/** Every `step`-th element from `start` to `end` (inputs 1 to 4); steps may be negative. */
export const slice: OperatorDefinition = {
  name: "Slice",
  inputs: [3, 5],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const numbers = (index: number) =>
      context.inputs[index] === undefined ? undefined : context.constantNumbers(index);
    const axes = numbers(3) ?? context.constantNumbers(1).map((_, index) => index);
    const steps = numbers(4) ?? axes.map(() => 1);
    const dims = axes.map((axis) => normalizeDim(axis, shape.length));
    if (dims.includes(undefined) || new Set(dims).size !== dims.length || steps.includes(0)) {
      context.fail(`axes [${axes.join(", ")}] with steps [${steps.join(", ")}] are not valid`);
    }
    return [{ dtype, shape: rangesOf(context, shape).map((range) => range.count) }];
  },
  gradient: (context) => {
    const x = context.input(0);
    const ranges = rangesOf(context, x.shape);
    const backwards = backwardOf(ranges);
    const dy = backwards.length === 0 ? context.gradient(0) : flip(context.gradient(0), backwards);
    const spread = interleave(
      dy,
      ranges.map((range) => Math.abs(range.step)),
    );
    const before = ranges.map(({ start, step, count }) =>
      step < 0 ? start + (count - 1) * step : start,
    );
    const after = x.shape.map(
      (size, dim) => size - (before[dim] as number) - (spread.shape[dim] as number),
    );
    return [pad(spread, before, after), undefined, undefined, undefined, undefined];
  },
  flops: noFlops,
  moves: true,
  inPlace: false,
  batch: { linear: "first", mixes: backwardDims },
  divisions: (context) => {
    const { shape } = context.input(0);
    const ranges = rangesOf(context, shape);
    const others = context.inputs.slice(1).map(() => undefined);
    return ranges.flatMap((range, dim) => {
      if (range.step === 1 && range.count === shape[dim]) {
        const local = (rank: LocalContext) => slicedBut(rank, ranges, dim, undefined);
        return along(context, { inputs: [dim, ...others], outputs: [dim], local });
      }
      return sectionsOfRange(context, range, dim);
    });
  },
};

/** What is taken are sections of the dim, which are cut evenly, and so is what is left out. */
function sectionsOfRange(
  context: DivisionContext,
  { start, step, count }: Range,
  dim: number,
): Division[] {
  const { shape } = context.input(0);
  const ranges = rangesOf(context, shape);
  const others = context.inputs.slice(1).map(() => undefined);
  if (step !== 1 || count === 0) return [];
  const own = { start: start / context.ranks, step: 1, count: count / context.ranks };
  return rangeSections(context, [start, count, (shape[dim] as number) - start - count]).map(
    ({ whole, within }) =>
      divisionOf([shardIn(dim, whole), ...others], [shardIn(dim, within)], (rank) =>
        slicedBut(rank, ranges, dim, own),
      ),
  );
}

/** The same slice, but for one dim: that is whole, or another range of it is taken. */
function slicedBut(
  { input }: LocalContext,
  ranges: readonly Range[],
  dim: number,
  own: Range | undefined,
): Value[] {
  const taken = ranges.flatMap((range, axis): SliceRange[] => {
    const use = axis === dim ? own : range;
    if (use === undefined || (use.step === 1 && use.count === input(0).shape[axis])) return [];
    const last = use.start + use.count * use.step;
    // A range that goes back to the first element ends before it.
    return [
      { axis, start: use.start, end: last < 0 ? Number.MIN_SAFE_INTEGER : last, step: use.step },
    ];
  });
  return [
    taken.length === 0 ? input(0).builder.one("Identity", [input(0)]) : sliceOf(input(0), taken),
  ];
}

function backwardOf(ranges: readonly Range[]): number[] {
  return ranges.flatMap(({ step }, dim) => (step < 0 ? [dim] : []));
}

function backwardDims(context: BatchContext): number[] {
  return backwardOf(rangesOf(context, context.input(0).shape));
}

/**
 * The range that is taken of each dim, by ONNX's rules for bounds that are negative or too large.
 */
function rangesOf(context: InferContext | GradientContext | BatchContext, shape: Shape): Range[] {
  const ranges: Range[] = shape.map((size) => ({ start: 0, step: 1, count: size }));
  const [starts, ends] = [context.constantNumbers(1), context.constantNumbers(2)];
  const axes = context.inputs[3] === undefined ? undefined : context.constantNumbers(3);
  const steps = context.inputs[4] === undefined ? undefined : context.constantNumbers(4);
  for (const [index, given] of starts.entries()) {
    const dim = normalizeDim(axes?.[index] ?? index, shape.length) as number;
    const size = shape[dim] as number;
    const step = steps?.[index] ?? 1;
    const clamp = (value: number, low: number, high: number) =>
      Math.min(Math.max(value < 0 ? value + size : value, low), high);
    const [low, high] = step > 0 ? [0, size] : [-1, size - 1];
    const start = clamp(given, 0, high);
    const end = clamp(ends[index] as number, low, high);
    ranges[dim] = { start, step, count: Math.max(0, Math.ceil((end - start) / step)) };
  }
  return ranges;
}

/**
 * Spreads elements `steps[dim]` apart, with zeros between and after them: each dim becomes that
 * many times as long.
 */
function interleave(x: Value, steps: readonly number[]): Value {
  if (steps.every((step) => step === 1)) return x;
  const apart: number[] = [];
  const after: number[] = [];
  for (const [dim, step] of steps.entries()) {
    apart.push(x.shape[dim] as number);
    after.push(0);
    if (step === 1) continue;
    apart.push(1);
    after.push(step - 1);
  }
  const none = after.map(() => 0);
  return reshape(
    pad(reshape(x, apart), none, after),
    x.shape.map((size, dim) => size * (steps[dim] as number)),
  );
}

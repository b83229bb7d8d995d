import {
  add,
  flip,
  full,
  mul,
  pad as padded,
  reduceSum,
  reshape,
  slice,
} from "../../functional/index.ts";
import type {
  GradientContext,
  InferContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { normalizeDim, type Shape, type Tensor, toNumbers } from "../../tensor/index.ts";
import { along, divisionOf, linearDivisions, rangeSections, shardIn } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/**
 * Adds elements before and after each dim (input 1); negative numbers, in mode `constant`, remove
 * elements. Modes: `constant` (input 2, or zero), `reflect` (without repeating the edge), `edge`,
 * `wrap`.
 */
export const pad: OperatorDefinition = {
  name: "Pad",
  inputs: [2, 4],
  outputs: [1, 1],
  attributes: { mode: { kind: "string", default: "constant" } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const { before, after } = amounts(context, shape);
    const mode = context.attributes.string("mode");
    const limits: Record<string, (size: number) => number> = {
      constant: () => Infinity,
      edge: () => Infinity,
      reflect: (size) => size - 1,
      wrap: (size) => size,
    };
    const limit = limits[mode];
    if (limit === undefined) {
      return context.fail(
        `mode "${mode}" is not known`,
        `Modes: ${Object.keys(limits).join(", ")}.`,
      );
    }
    for (const [dim, size] of shape.entries()) {
      const [low, high] = [before[dim] as number, after[dim] as number];
      const tooFew = mode !== "constant" && Math.min(low, high) < 0;
      if (tooFew || Math.max(low, high) > limit(size) || low + size + high < 0) {
        context.fail(`mode "${mode}" cannot pad dim ${dim} of size ${size} by ${low} and ${high}`);
      }
    }
    const sizes = shape.map((size, dim) => (before[dim] as number) + size + (after[dim] as number));
    return [{ dtype, shape: sizes }];
  },
  gradient: (context) => {
    const x = context.input(0);
    const { before, after } = amounts(context, x.shape);
    const mode = context.attributes.string("mode");
    let dx = context.gradient(0);
    if (mode === "constant") {
      const inner = padded(
        dx,
        before.map((size) => 0 - size),
        after.map((size) => 0 - size),
      );
      return [inner, undefined, context.needs(2) ? outside(context, before, after) : undefined];
    }
    for (const dim of x.shape.keys()) {
      dx = fold(dx, dim, before[dim] as number, after[dim] as number, mode);
    }
    return [dx, undefined, undefined, undefined];
  },
  flops: noFlops,
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    const { before, after } = amounts(context, shape);
    const isConstant = context.attributes.string("mode") === "constant";
    const others = context.inputs.slice(1).map(() => undefined);
    const [filled] = context.inputs[2] === undefined ? [0] : (numbersOf(context.constant(2)) ?? []);
    return [
      ...shape.flatMap((size, dim) => {
        const [low, high] = [before[dim] as number, after[dim] as number];
        if (low === 0 && high === 0) {
          return along(context, { inputs: [dim, ...others], outputs: [dim] });
        }
        if (!isConstant || size === 0 || low < 0 || high < 0) return [];
        const local = (rank: LocalContext) => [ownPadding(rank, before, after, dim)];
        return rangeSections(context, [low, size, high]).map(({ whole, within }) =>
          divisionOf([shardIn(dim, within), ...others], [shardIn(dim, whole)], local),
        );
      }),
      ...(isConstant && filled === 0 ? linearDivisions(context, "first") : []),
    ];
  },
};

function numbersOf(tensor: Tensor | undefined): number[] | undefined {
  return tensor && toNumbers(tensor);
}

/** A rank adds its part of the padding of a dim. */
function ownPadding(
  { input, inputs, builder, ranks }: LocalContext,
  before: readonly number[],
  after: readonly number[],
  dim: number,
): Value {
  const own = (sizes: readonly number[]) => sizes.with(dim, (sizes[dim] as number) / ranks);
  return builder.one("Pad", [input(0), builder.ints([...own(before), ...own(after)]), inputs[2]]);
}

function amounts(
  context: InferContext | GradientContext,
  shape: Shape,
): { before: number[]; after: number[] } {
  const pads = context.constantNumbers(1);
  const given = context.inputs[3] === undefined ? undefined : context.constantNumbers(3);
  const axes = given ?? shape.map((_, dim) => dim);
  const [before, after] = [shape.map(() => 0), shape.map(() => 0)];
  const dims = axes.map((axis) => normalizeDim(axis, shape.length) ?? -1);
  if ("fail" in context && (pads.length !== 2 * axes.length || dims.includes(-1))) {
    context.fail(`pads [${pads.join(", ")}] do not fit the dims [${axes.join(", ")}]`);
  }
  for (const [index, dim] of dims.entries()) {
    before[dim] = pads[index] as number;
    after[dim] = pads[axes.length + index] as number;
  }
  return { before, after };
}

/** The gradient of the constant: the sum of the gradients of the padding. */
function outside(context: GradientContext, before: number[], after: number[]): Value {
  const x = context.input(0);
  const zeros = full(x.builder, x.dtype, x.shape, 0);
  const pads = x.builder.ints([...before, ...after]);
  const isPadding = x.builder.one("Pad", [zeros, pads, x.builder.scalar(x.dtype, 1)]);
  const constant = context.input(2);
  const total = reduceSum(mul(context.gradient(0), isPadding), { keepdims: false });
  return reshape(total, constant.shape);
}

/** Adds the gradients of the padding of one dim to the elements that it was copied from. */
function fold(dy: Value, axis: number, before: number, after: number, mode: string): Value {
  if (before === 0 && after === 0) return dy;
  const size = (dy.shape[axis] as number) - before - after;
  const piece = (start: number, end: number) => slice(dy, [{ axis, start, end }]);
  const place = (part: Value, start: number) => {
    const zeros = part.shape.map(() => 0);
    const rest = size - start - (part.shape[axis] as number);
    return padded(part, zeros.with(axis, start), zeros.with(axis, rest));
  };
  const target = (part: Value, isBefore: boolean): Value => {
    const length = part.shape[axis] as number;
    if (mode === "reflect") return place(flip(part, [axis]), isBefore ? 1 : size - 1 - length);
    if (mode === "wrap") return place(part, isBefore ? size - length : 0);
    return place(reduceSum(part, { axes: [axis] }), isBefore ? 0 : size - 1);
  };
  let dx = piece(before, before + size);
  if (before > 0) dx = add(dx, target(piece(0, before), true));
  if (after > 0) dx = add(dx, target(piece(before + size, before + size + after), false));
  return dx;
}

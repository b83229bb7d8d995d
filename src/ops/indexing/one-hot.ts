import { cast, concat, mul, reduceSum, reshape, sub } from "../../functional/index.ts";
import type {
  GradientContext,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { along, divisionOf, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";
import { orBehind, ownIndices } from "./own-part.ts";

/**
 * Input 0 (indices) along a new dim `axis` of size input 1: the second element of input 2 at the
 * index, the first elsewhere. Our own graphs compare with a range instead, which runs on every
 * engine.
 */
export const oneHot: OperatorDefinition = {
  name: "OneHot",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: { axis: { kind: "int", default: -1 } },
  infer: (context) => {
    const { shape } = context.input(0);
    const [depth] = context.constantNumbers(1) as [number];
    const values = context.input(2);
    if (values.shape.length !== 1 || values.shape[0] !== 2) context.fail("takes two values");
    return [{ dtype: values.dtype, shape: shape.toSpliced(newDim(context, shape), 0, depth) }];
  },
  gradient: (context) => [
    undefined,
    undefined,
    context.needs(2) ? valuesGradient(context) : undefined,
  ],
  flops: noFlops,
  // ONNX turns any other index into a row of zeros, which stands for no class.
  indices: (context) => [{ input: 0, places: context.constantNumbers(1), wraps: false }],
  inPlace: false,
  divisions: (context) => {
    const { dtype, shape } = context.input(0);
    const [depth] = context.constantNumbers(1) as [number];
    const axis = newDim(context, shape);
    const byIndex = shape.flatMap((_, dim) =>
      along(context, {
        inputs: [dim, undefined, undefined],
        outputs: [dim < axis ? dim : dim + 1],
      }),
    );
    const own = sectionedDim(axis, depth, [1], context.ranks);
    const isInteger = dtype === "int32" || dtype === "int64";
    const places = depth / context.ranks;
    const byClass = divisionOf([undefined, undefined, undefined], [own], (rank) => {
      const at = orBehind(ownIndices(rank, rank.input(0), places), places);
      return rank.again([at, rank.builder.ints([places]), rank.input(2)]);
    });
    return [
      ...byIndex,
      ...(own && isInteger ? [byClass] : []),
      divisionOf([undefined, undefined, "partial"], ["partial"]),
    ];
  },
};

function newDim(context: InferContext, { length }: readonly number[]): number {
  const axis = context.attributes.number("axis");
  const dim = axis < 0 ? axis + length + 1 : axis;
  return dim >= 0 && dim <= length ? dim : context.fail(`axis ${axis} is out of range`);
}

/** The sums of the gradients at the off positions and at the on positions. */
function valuesGradient(context: GradientContext): Value {
  const dy = context.gradient(0);
  const b = context.builder;
  const flags = b.one("OneHot", [context.input(0), context.input(1), b.ints([0, 1])], {
    axis: context.attributes.number("axis"),
  });
  const on = cast(flags, dy.dtype);
  const total = (x: Value) => reshape(reduceSum(x, { keepdims: false }), [1]);
  return concat([total(mul(dy, sub(1, on))), total(mul(dy, on))], 0);
}

import { add, mul, reshape, sub } from "../../functional/index.ts";
import type {
  Division,
  DivisionContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount, type Shape, tensorFrom } from "../../tensor/index.ts";
import { along, sectionSizes } from "../divisions.ts";
import { sumAt } from "../indexing/index.ts";
import { placesOfPart } from "../parts.ts";
import { POOL_ATTRIBUTES, pooledType } from "./pool.ts";

/**
 * The maximum of each window of X (N, C, sizes). Output 1 is its index into all of X; of several
 * equal maxima, that of the first.
 */
export const maxPool: OperatorDefinition = {
  name: "MaxPool",
  inputs: [1, 1],
  outputs: [1, 2],
  attributes: { ...POOL_ATTRIBUTES, storage_order: { kind: "int", default: 0 } },
  infer: (context) => {
    const type = pooledType(context);
    if (context.attributes.number("storage_order") !== 0) {
      context.fail("indices in column-major order (storage_order 1) are not supported");
    }
    return [type, { dtype: "int64", shape: type.shape }];
  },
  // Windows may overlap, so the gradients of one element are added.
  gradient: (context) => {
    const [x, dy] = [context.input(0), context.gradient(0)];
    const [from, to] = [elementCount(dy.shape), elementCount(x.shape)];
    const at = reshape(context.output(1), [from]);
    const flat = sumAt(at, reshape(dy, [from]), 0, [to]);
    return [reshape(flat, x.shape)];
  },
  flops: (context) =>
    elementCount(context.attributes.numbers("kernel_shape")) *
    elementCount(context.outputs[0]?.shape ?? []),
  inPlace: false,
  divisions: maxDivisions,
};

/** By samples and by channels. */
function maxDivisions(context: DivisionContext): Division[] {
  const { shape } = context.input(0);
  const hasIndices = context.outputs.length > 1;
  return [0, 1].flatMap((dim) =>
    context.proportions.flatMap((proportion) =>
      along(
        { ...context, proportions: [proportion] },
        {
          inputs: [dim],
          outputs: context.outputs.map(() => dim),
          local: hasIndices
            ? (rank) =>
                withIndices(rank, shape, dim, sectionSizes(shape[dim] as number, proportion))
            : undefined,
        },
      ),
    ),
  );
}

/**
 * The maxima of a part of X, with their indices into all of X.
 * @param whole the shape of all of X
 * @param sections of dim `dim`, which is cut: that of samples or of channels
 */
function withIndices(
  rank: LocalContext,
  whole: Shape,
  dim: number,
  sections: readonly number[],
): readonly Value[] {
  const { builder, inputs, input, again } = rank;
  const { shape } = input(0);
  const [maxima, own] = again(inputs) as [Value, Value];
  const list = (numbers: readonly number[]) =>
    builder.constant(tensorFrom("int64", [numbers.length], numbers));
  const lineUp = (value: Value, at: number) =>
    reshape(
      value,
      shape.map((_, other) => (other === at ? -1 : 1)),
    );
  // An index counts elements: so many lie between two indices of the dim, in all of X and here.
  const inner = elementCount(shape.slice(dim + 1));
  const here = Array.from({ length: shape[dim] as number }, (_, at) => at);
  const moved = mul(sub(placesOfPart(rank, sections), list(here)), inner);
  const shifted = add(own, lineUp(moved, dim));
  if (dim === 0) return [maxima, shifted];
  // The samples before one are larger in all of X.
  const more = elementCount(whole.slice(1)) - elementCount(shape.slice(1));
  const samples = Array.from({ length: shape[0] as number }, (_, sample) => sample * more);
  return [maxima, add(shifted, lineUp(list(samples), 0))];
}

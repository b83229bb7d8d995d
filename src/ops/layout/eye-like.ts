import { add, cast, equal, mul, range, reshape } from "../../functional/index.ts";
import type { LocalContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { dtypeFromOnnx, type TensorType } from "../../tensor/index.ts";
import { divisionOf, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/**
 * Ones on diagonal `k` and zeros elsewhere, in the shape of the input and of type `dtype` (or the
 * input's type).
 */
export const eyeLike: OperatorDefinition = {
  name: "EyeLike",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {
    dtype: { kind: "int", default: null },
    k: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    if (shape.length !== 2) context.fail("takes a matrix");
    if (!context.attributes.has("dtype")) return [{ dtype, shape }];
    const number = context.attributes.number("dtype");
    return [
      { dtype: dtypeFromOnnx(number) ?? context.failType(`type ${number} is not known`), shape },
    ];
  },
  gradient: { zero: "does not depend on the elements" },
  flops: noFlops,
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    const diagonal = context.attributes.number("k");
    return shape.flatMap((size, dim) => {
      const own = sectionedDim(dim, size, [1], context.ranks);
      return own ? [divisionOf([own], [own], (rank) => [ownOnes(rank, dim, diagonal)])] : [];
    });
  },
};

/** The ones in a rank's part of the rows (dim 0) or columns (dim 1). */
function ownOnes({ builder, outputs, place }: LocalContext, cut: number, diagonal: number): Value {
  const { dtype, shape } = outputs[0] as TensorType;
  const [rows, columns] = shape.map((size, dim) => {
    const numbers = range(builder, "int64", 0, size);
    return dim === cut ? add(numbers, mul(place(), size)) : numbers;
  }) as [Value, Value];
  return cast(equal(columns, reshape(add(rows, diagonal), [rows.shape[0] as number, 1])), dtype);
}

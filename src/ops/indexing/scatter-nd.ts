import {
  add,
  cast,
  div,
  equal,
  flatIndices,
  gatherND,
  mul,
  pad,
  reshape,
  scatterND as scatter,
  slice,
  zerosLike,
} from "../../functional/index.ts";
import type {
  GradientContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount, sameShape } from "../../tensor/index.ts";
import { along, divisionOf, sectionedDim, sectionedWays } from "../divisions.ts";
import {
  componentOf,
  orBehind,
  ownIndices,
  rowsOf,
  withComponent,
  withOwnRows,
} from "./own-part.ts";
import {
  checkIndices,
  checkReduction,
  picksTuples,
  productGradient,
  REDUCTION,
  tuplesInto,
} from "./shared.ts";
import { sumRows } from "./sum-rows.ts";

/**
 * Input 0 with the parts at the index tuples in the last dim of input 1 replaced by those in input
 * 2 (tuples must then not repeat), or combined with them. With a reduction and repeated tuples,
 * ONNX Runtime's CPU provider loses updates on more than one thread: no rule of ours makes such a
 * node.
 */
export const scatterND: OperatorDefinition = {
  name: "ScatterND",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: { reduction: REDUCTION },
  infer: (context) => {
    const type = context.input(0);
    const tuples = checkIndices(context, 1);
    const updates = context.input(2);
    checkReduction(context);
    if (updates.dtype !== type.dtype) context.failType("updates have the data's element type");
    const depth = tuples.at(-1) ?? Infinity;
    const expected = [...tuples.slice(0, -1), ...type.shape.slice(depth)];
    if (depth > type.shape.length || !sameShape(updates.shape, expected)) {
      context.fail(`updates of shape [${expected.join(", ")}] fit these indices`);
    }
    return [type];
  },
  gradient: (context) => {
    const [tuples, updates, dy] = [context.input(1), context.input(2), context.gradient(0)];
    const read = () => (context.needs(2) ? gatherND(dy, tuples) : undefined);
    switch (context.attributes.string("reduction")) {
      case "none":
        return [
          context.needs(0) ? scatter(dy, tuples, zerosLike(updates)) : undefined,
          undefined,
          read(),
        ];
      case "add":
        return [dy, undefined, read()];
      case "mul":
        return productGradient(
          context,
          (to, from, reduction) => scatter(to, tuples, from, reduction),
          (from) => gatherND(from, tuples),
        );
      default:
        return extremeGradient(context);
    }
  },
  flops: (context) => elementCount(context.input(2).shape),
  indices: (context) => tuplesInto(context, 0),
  inPlace: false,
  batch: { picks: (context) => picksTuples(context, 0) },
  divisions: (context) => {
    const [shape, tuples] = [context.input(0).shape, context.input(1).shape];
    const depth = tuples.at(-1) as number;
    const reduction = context.attributes.string("reduction");
    const byData = shape.flatMap((size, dim) => {
      const from = dim - depth + tuples.length - 1;
      if (dim >= depth) return along(context, { inputs: [dim, undefined, from], outputs: [dim] });
      const own = sectionedDim(dim, size, [1], context.ranks);
      const local = (rank: LocalContext) => [ownScatter(rank, dim)];
      return own ? [divisionOf([own, undefined, undefined], [own], local)] : [];
    });
    const rows = rowsOf(context);
    const byRow =
      rows &&
      divisionOf([rows, rows, rows], [rows], ({ input, again }) =>
        again([input(0), withOwnRows(input(1)), input(2)]),
      );
    const isLinear = reduction === "none" || reduction === "add";
    // The data are a term of the sum, like what each rank adds to them.
    const terms = tuples.slice(0, -1).flatMap((size, dim) => {
      const added = sectionedWays(context, dim, size);
      return added.map((on) => divisionOf(["partial", on, on], ["partial"]));
    });
    return [
      ...byData,
      ...(byRow ? [byRow] : []),
      ...(isLinear ? [divisionOf(["partial", undefined, "partial"], ["partial"])] : []),
      ...(reduction === "add" ? terms : []),
    ];
  },
};

/** For max and min: the elements equal to the result share its gradient evenly. */
function extremeGradient(context: GradientContext): (Value | undefined)[] {
  const [x, tuples, updates] = [context.input(0), context.input(1), context.input(2)];
  const y = context.output(0);
  const depth = tuples.shape.at(-1) as number;
  const kept = cast(equal(x, y), x.dtype);
  const written = cast(equal(updates, gatherND(y, tuples)), x.dtype);
  const indices = flatIndices(tuples, x.shape.slice(0, depth), 0);
  const rows = [1, elementCount(indices.shape), elementCount(x.shape.slice(depth))];
  const places = elementCount(x.shape.slice(0, depth));
  const count = add(kept, reshape(sumRows(reshape(written, rows), indices, places), x.shape));
  const share = div(context.gradient(0), count);
  return [mul(kept, share), undefined, mul(written, gatherND(share, tuples))];
}

/** This rank's part of a dim of the data, with what is written there. */
function ownScatter(context: LocalContext, dim: number): Value {
  const [data, tuples, updates] = [context.input(0), context.input(1), context.input(2)];
  const places = data.shape[dim] as number;
  const found = ownIndices(context, componentOf(tuples, dim), places);
  // What belongs to others goes behind the part, and is left out.
  const zeros = data.shape.map(() => 0);
  const longer = pad(data, zeros, zeros.with(dim, 1));
  const own = withComponent(tuples, dim, orBehind(found, places));
  const [all] = context.again([longer, own, updates]) as readonly [Value];
  return slice(all, [{ axis: dim, start: 0, end: places }]);
}
